//! The x86-64 machine boots a disk by its own boot loader: Debian's build of EDK2, Debian's GRUB, Debian's kernel. It
//! reboots, which runs the firmware again, and powers off; recorded, replayed by either engine.

use anyhow::{Context, Result, ensure};
use guest_image::{NoProgress, PC_FIRMWARE, PackagedFile};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xtask::efi_disk::{self, FileOnDisk};
use xtask::engines::image;
use xtask::{bench, program};

const GRUB: PackagedFile = PackagedFile::of_guests_debian(
    "grub-efi-amd64-signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
);
/// Instructions that the interpreter, which is slow, replays: the firmware, as far as the disk's loader, and the first
/// digests (of the 7.6 billion until the end, a minute's work).
const INTERPRETED: &str = "1200000000";

/// The firmware and the boot loader; none, and why, without a network.
fn fetched() -> Result<Option<[PathBuf; 2]>> {
    let cache = guest_image::default_cache_directory().context("no home directory")?;
    let mut paths = Vec::new();
    for file in [PC_FIRMWARE, GRUB] {
        match file.fetch(&cache, None, false, &mut NoProgress) {
            Ok(path) => paths.push(path),
            Err(error) => {
                eprintln!("NOT TESTED: firmware and boot loader are out of reach: {error}");
                return Ok(None);
            }
        }
    }
    Ok(paths.try_into().ok())
}

/// A disk that GRUB boots Debian's kernel from.
fn make_disk(directory: &Path, grub: &Path) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guest = workspace.join("../target/guest-workloads/firmware-amd64");
    let script = workspace.join("guest-workloads/marks_the_disk.sh");
    image::build(
        &guest,
        &[
            "--arch=amd64".to_owned(),
            "--package=busybox-static".to_owned(),
            format!(
                "--add-file={}:/workload/marks_the_disk.sh",
                script.display()
            ),
        ],
    )?;
    let configuration = "linux /KERNEL console=ttyS0 quiet tsc=reliable mitigations=off \
         understudy.network=none understudy.run=/workload/marks_the_disk.sh\ninitrd /INITRD\nboot\n";
    let disk = directory.join("disk.raw");
    let (grub, kernel, initrd) = (
        fs::read(grub)?,
        fs::read(guest.join("kernel"))?,
        fs::read(guest.join("initrd"))?,
    );
    let file = |path, content| FileOnDisk { path, content };
    efi_disk::write(
        &disk,
        &[
            file("EFI/BOOT/BOOTX64.EFI", &grub),
            file("EFI/DEBIAN/GRUB.CFG", configuration.as_bytes()),
            file("KERNEL", &kernel),
            file("INITRD", &initrd),
        ],
    )?;
    Ok(disk)
}

#[test]
fn a_disk_boots_by_its_own_loader_reboots_and_powers_off() -> Result<()> {
    let Some([firmware, grub]) = fetched()? else {
        return Ok(());
    };
    let directory = bench::scratch("firmware")?;
    let disk = make_disk(&directory, &grub)?;
    let program = program::path()?;
    let recording = directory.join("recording");
    let output = Command::new(&program)
        .args([
            "run", "--arch", "x86-64", "--memory", "512M", "--harts", "2",
        ])
        .arg("--firmware")
        .arg(&firmware)
        .arg("--disk")
        .arg(&disk)
        .arg("--record")
        .arg(&recording)
        .stdin(Stdio::null())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}\n{printed}");
    for once in [
        "first boot: no DMI",
        "second boot: 2 CPUs, /sys/firmware/efi",
    ] {
        ensure!(printed.matches(once).count() == 1, "{once:?} in\n{printed}");
    }
    let starts = printed.matches("BdsDxe: starting ").count();
    ensure!(starts == 2, "the firmware ran {starts} times:\n{printed}");

    let replay = |more: &[&str]| -> Result<()> {
        let mut command = Command::new(&program);
        let status = command.arg("replay").arg(&recording).args(more).status()?;
        ensure!(status.success(), "the replay with {more:?} differs");
        Ok(())
    };
    replay(&["--engine", "jit"])?;
    replay(&["--engine", "interpreter", "--until", INTERPRETED])
}
