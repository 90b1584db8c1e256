//! The archive that the kernel unpacks as its first file system: cpio in the "newc" format, as the
//! kernel's `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
//!
//! It is left uncompressed: the host puts it straight into the guest's RAM, so its length costs
//! nothing, and every byte that the guest would have to decompress costs it about ten instructions
//! (measured for the demo guest's 20 MB until `/init` runs: gzip 370, zstd 1150 million more).

use std::io::{self, Write};

use crate::file_tree::{FileTree, NodeKind};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes `tree` as an archive, in the tree's order, so that equal trees give equal bytes.
///
/// # Errors
/// Those of `output`; and `InvalidInput` if a file is 4 GiB or longer, which the format cannot say.
pub fn write(tree: &FileTree, output: &mut impl Write) -> io::Result<()> {
    for (inode, (path, node)) in (1..).zip(tree.iter()) {
        let (file_type, data, device): (u32, &[u8], (u32, u32)) = match &node.kind {
            NodeKind::Directory => (S_IFDIR, &[], (0, 0)),
            NodeKind::File(content) => (S_IFREG, content, (0, 0)),
            NodeKind::SymbolicLink(target) => (S_IFLNK, target.as_bytes(), (0, 0)),
            NodeKind::CharacterDevice(major, minor) => (S_IFCHR, &[], (*major, *minor)),
        };
        let header = Header {
            inode,
            mode: file_type | node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: u32::try_from(node.mtime).unwrap_or(u32::MAX),
            device,
        };
        write_entry(output, &header, path, data)?;
    }
    let trailer = Header {
        inode: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        device: (0, 0),
    };
    write_entry(output, &trailer, TRAILER, &[])
}

struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u32,
    device: (u32, u32),
}

fn write_entry(
    output: &mut impl Write,
    header: &Header,
    path: &str,
    data: &[u8],
) -> io::Result<()> {
    let too_long = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path}: 4 GiB or more"),
        )
    };
    let size = u32::try_from(data.len()).map_err(too_long)?;
    let name_size = u32::try_from(path.len() + 1).map_err(too_long)?;
    let links = 1;
    let (device_major, device_minor, checksum) = (0, 0, 0);
    let fields = [
        header.inode,
        header.mode,
        header.uid,
        header.gid,
        links,
        header.mtime,
        size,
        device_major,
        device_minor,
        header.device.0,
        header.device.1,
        name_size,
        checksum,
    ];
    let mut head = String::from(MAGIC);
    for field in fields {
        head.push_str(&format!("{field:08x}"));
    }
    head.push_str(path);
    head.push('\0');
    output.write_all(head.as_bytes())?;
    output.write_all(padding(head.len()))?;
    output.write_all(data)?;
    output.write_all(padding(data.len()))
}

/// The zeros that bring something of `length` bytes to the next multiple of four.
fn padding(length: usize) -> &'static [u8] {
    &[0; 3][..length.wrapping_neg() % 4]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_tree::Node;

    fn archive(tree: &FileTree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, &mut bytes).unwrap();
        bytes
    }

    /// A reader written from the kernel's description, to judge the writer by.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), data);
                return entries;
            }
            entries.push((name, mode, bytes[data..data + size].to_vec()));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn newc_every_kind_of_node_is_written_with_its_type_mode_and_content() {
        let mut tree = FileTree::default();
        tree.insert("dev/console", Node::character_device(5, 1))
            .unwrap();
        tree.insert("etc/motd", Node::file(*b"hello", 0o644))
            .unwrap();
        tree.insert("init", Node::file(*b"#!", 0o755)).unwrap();
        tree.insert("lib", Node::symbolic_link("usr/lib")).unwrap();
        assert_eq!(
            read(&archive(&tree)),
            [
                ("dev".to_owned(), 0o040_755, vec![]),
                ("dev/console".to_owned(), 0o020_600, vec![]),
                ("etc".to_owned(), 0o040_755, vec![]),
                ("etc/motd".to_owned(), 0o100_644, b"hello".to_vec()),
                ("init".to_owned(), 0o100_755, b"#!".to_vec()),
                ("lib".to_owned(), 0o120_777, b"usr/lib".to_vec()),
            ]
        );
    }

    #[test]
    fn newc_names_and_data_of_every_length_modulo_four_stay_aligned() {
        for length in 0..9 {
            let mut tree = FileTree::default();
            let name = "n".repeat(length + 1);
            let content = vec![7; length];
            tree.insert(&name, Node::file(content.clone(), 0o600))
                .unwrap();
            tree.insert("z", Node::file(*b"end", 0o600)).unwrap();
            let entries = read(&archive(&tree));
            assert_eq!(entries[0], (name, 0o100_600, content));
            assert_eq!(entries[1].2, b"end");
        }
    }

    #[test]
    fn newc_the_header_is_byte_for_byte_what_the_format_says() {
        let mut tree = FileTree::default();
        let node = Node {
            mtime: 0x1234,
            uid: 1,
            gid: 2,
            ..Node::character_device(5, 1)
        };
        tree.insert("c", node).unwrap();
        let expected = "070701\
            00000001\
            00002180\
            00000001\
            00000002\
            00000001\
            00001234\
            00000000\
            00000000\
            00000000\
            00000005\
            00000001\
            00000002\
            00000000c\0";
        assert_eq!(&archive(&tree)[..expected.len()], expected.as_bytes());
    }
}
