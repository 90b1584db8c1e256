//! Several threads with one image, as a replica has: the guest's, and those that merge, compare and sync.

use crate::support::{check, content, name, on_disk, open, pattern, qemu_img_ok};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn threads_that_write_zero_read_and_flush_at_once_leave_each_others_bytes() {
    const PART: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    let options = "cluster_size=4096";
    qemu_img_ok(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        options,
        name(&path),
        "4M",
    ]);
    let image = Arc::new(open(on_disk(&path), None).unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let (flushed, over) = (image.clone(), is_over.clone());
    let flushing = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            flushed.flush().unwrap();
        }
    });
    let writers: Vec<_> = (0..4usize)
        .map(|part| {
            let image = image.clone();
            std::thread::spawn(move || {
                let mut model = vec![0; PART];
                for round in 0..60u64 {
                    let seed = round * 4 + part as u64;
                    let at = (seed.wrapping_mul(7919) % (PART as u64 / 512)) as usize * 512;
                    let length = (PART - at).min(20_480 + 512 * round as usize);
                    let place = (part * PART + at) as u64;
                    if round % 3 == 2 {
                        image.zero(place, length as u64).unwrap();
                        model[at..at + length].fill(0);
                    } else {
                        let bytes = pattern(seed, length);
                        image.write(place, &bytes).unwrap();
                        model[at..at + length].copy_from_slice(&bytes);
                    }
                    let mut out = vec![1; PART];
                    image.read((part * PART) as u64, &mut out).unwrap();
                    assert!(out == model, "part {part} in round {round}");
                }
                model
            })
        })
        .collect();
    let models: Vec<Vec<u8>> = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .collect();
    is_over.store(true, Ordering::Relaxed);
    flushing.join().unwrap();
    drop(image);
    assert!(content(&path) == models.concat());
    assert_eq!(check(&path), 0);
}
