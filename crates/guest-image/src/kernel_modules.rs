//! The kernel's modules: which ones a guest needs, in the order in which they can be loaded.
//!
//! Debian makes `modules.dep` on the machine where the kernel is installed, so it is in no package;
//! the modules themselves say what they need, in their `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use crate::GuestImageError;
use crate::elf;
use crate::file_tree::{FileTree, NodeKind};

const SIGNATURE_END: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` of the kernel's `include/linux/module_signature.h`; its last four bytes
/// are the signature's length, big-endian.
const SIGNATURE_INFO_BYTES: usize = 12;

/// One module, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelModule {
    /// Its name as `insmod` and `lsmod` know it, with underscores.
    pub name: String,
    /// Its path in the kernel's package, without the suffix of a compression.
    pub path: String,
    /// The uncompressed object file without its signature.
    pub content: Arc<[u8]>,
}

/// All modules of an unpacked kernel package.
pub struct KernelModules<'a> {
    tree: &'a FileTree,
    /// Module name to path.
    paths: BTreeMap<String, &'a str>,
    /// Names of what is built into the kernel.
    built_in: BTreeSet<String>,
}

impl<'a> KernelModules<'a> {
    /// Finds the modules in the tree of an unpacked kernel package.
    pub fn new(tree: &'a FileTree) -> Self {
        let mut paths = BTreeMap::new();
        let mut built_in = BTreeSet::new();
        for (path, node) in tree.iter() {
            if !matches!(node.kind, NodeKind::File(_)) {
                continue;
            }
            if path.ends_with("/modules.builtin") {
                let list = tree
                    .file(path)
                    .map(|list| String::from_utf8_lossy(list).into_owned());
                built_in.extend(list.unwrap_or_default().lines().filter_map(module_name));
            } else if let Some(name) = module_name(path) {
                paths.insert(name, path);
            }
        }
        Self {
            tree,
            paths,
            built_in,
        }
    }

    /// Whether the kernel has such a module, as a file or built in.
    pub fn contains(&self, name: &str) -> bool {
        let name = normalised(name);
        self.built_in.contains(&name) || self.paths.contains_key(&name)
    }

    /// `wanted` and all that they depend on, each after what it depends on, each once. What is built
    /// into the kernel is left out.
    ///
    /// # Errors
    /// [`GuestImageError::FileNotInPackages`] for a module that the kernel does not have,
    /// [`GuestImageError::BadPackage`] for one that cannot be read.
    pub fn in_load_order(&self, wanted: &[&str]) -> Result<Vec<KernelModule>, GuestImageError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(&normalised(name), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<KernelModule>,
    ) -> Result<(), GuestImageError> {
        if self.built_in.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let module = self.read(name)?;
        for dependency in dependencies(&module.content) {
            self.visit(&dependency, seen, order)?;
        }
        order.push(module);
        Ok(())
    }

    fn read(&self, name: &str) -> Result<KernelModule, GuestImageError> {
        let missing = || GuestImageError::FileNotInPackages {
            file: format!("{name}.ko"),
            hint: "this kernel has no such module; another kernel version may have renamed it",
        };
        let path = *self.paths.get(name).ok_or_else(missing)?;
        let packed = self.tree.file(path).ok_or_else(missing)?;
        let bad = |reason: String| GuestImageError::BadPackage {
            path: path.into(),
            reason,
        };
        let mut content = match path.strip_suffix(".xz") {
            None => packed.to_vec(),
            Some(_) => {
                let mut content = Vec::new();
                lzma_rust2::XzReader::new(&packed[..], false)
                    .read_to_end(&mut content)
                    .map_err(|error| bad(format!("the module cannot be decompressed: {error}")))?;
                content
            }
        };
        content.truncate(length_without_signature(&content));
        if elf::section(&content, ".modinfo").is_none() {
            return Err(bad("the module has no .modinfo section".to_owned()));
        }
        Ok(KernelModule {
            name: name.to_owned(),
            path: path.strip_suffix(".xz").unwrap_or(path).to_owned(),
            content: content.into(),
        })
    }
}

/// The name of the module in a file such as `kernel/drivers/char/hw_random/virtio-rng.ko.xz`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let name = file
        .strip_suffix(".ko")
        .or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(normalised(name))
}

fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module says in its `depends` line. (What it asks for by alias at run time, as ext4 does for
/// crc32c, has to be named by whoever wants it.)
fn dependencies(module: &[u8]) -> Vec<String> {
    let modinfo = elf::section(module, ".modinfo").unwrap_or_default();
    let mut names = Vec::new();
    for line in modinfo.split(|byte| *byte == 0) {
        let line = String::from_utf8_lossy(line);
        if let Some(list) = line.strip_prefix("depends=") {
            names.extend(
                list.split(',')
                    .filter(|name| !name.is_empty())
                    .map(normalised),
            );
        }
    }
    names
}

/// A module without its signature: the check costs the guest 30 million instructions a module, and
/// it proves nothing more than the package's own checksum, which apt has verified.
fn length_without_signature(module: &[u8]) -> usize {
    let without = || {
        let signed = module.strip_suffix(SIGNATURE_END)?;
        let (_, length) = signed.split_last_chunk::<4>()?;
        let trailer = usize::try_from(u32::from_be_bytes(*length)).ok()? + SIGNATURE_INFO_BYTES;
        signed.len().checked_sub(trailer)
    };
    without().unwrap_or(module.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::object_with_modinfo;
    use crate::file_tree::Node;

    fn kernel(modules: &[(&str, &str)]) -> FileTree {
        let mut tree = FileTree::default();
        for (path, depends) in modules {
            let modinfo = format!("license=GPL\0depends={depends}\0name=x\0");
            let content = object_with_modinfo(modinfo.as_bytes());
            tree.insert(
                &format!("usr/lib/modules/6.12/kernel/{path}"),
                Node::file(content, 0o644),
            )
            .unwrap();
        }
        tree
    }

    fn order(tree: &FileTree, wanted: &[&str]) -> Vec<String> {
        let modules = KernelModules::new(tree).in_load_order(wanted).unwrap();
        modules.into_iter().map(|module| module.name).collect()
    }

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_only_once() {
        let tree = kernel(&[
            ("drivers/net/virtio_net.ko", "net_failover,failover"),
            ("drivers/net/net_failover.ko", "failover"),
            ("net/core/failover.ko", ""),
        ]);
        assert_eq!(
            order(&tree, &["virtio_net", "failover"]),
            ["failover", "net_failover", "virtio_net"]
        );
    }

    #[test]
    fn dashes_and_underscores_are_the_same_in_module_names() {
        let tree = kernel(&[("char/virtio-rng.ko", "")]);
        assert_eq!(order(&tree, &["virtio_rng"]), ["virtio_rng"]);
        assert_eq!(order(&tree, &["virtio-rng"]), ["virtio_rng"]);
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let mut tree = kernel(&[("ext4.ko", "crc16")]);
        let list = Node::file(*b"kernel/lib/crc16.ko\n", 0o644);
        tree.insert("usr/lib/modules/6.12/modules.builtin", list)
            .unwrap();
        assert_eq!(order(&tree, &["ext4", "crc16"]), ["ext4"]);
    }

    #[test]
    fn a_dependency_loop_ends() {
        let tree = kernel(&[("a.ko", "b"), ("b.ko", "a")]);
        assert_eq!(order(&tree, &["a"]), ["b", "a"]);
    }

    #[test]
    fn an_unknown_module_is_named_in_the_error() {
        let tree = kernel(&[]);
        let error = KernelModules::new(&tree)
            .in_load_order(&["virtio_blk"])
            .unwrap_err();
        assert!(error.to_string().contains("virtio_blk.ko"), "{error}");
    }

    #[test]
    fn a_signature_is_cut_off_and_nothing_else() {
        let module = object_with_modinfo(b"depends=\0");
        let mut signed = module.clone();
        signed.extend_from_slice(&[0xaa; 300]);
        signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0]);
        signed.extend_from_slice(&300u32.to_be_bytes());
        signed.extend_from_slice(SIGNATURE_END);
        assert_eq!(length_without_signature(&signed), module.len());
        assert_eq!(length_without_signature(&module), module.len());
        assert_eq!(length_without_signature(SIGNATURE_END), SIGNATURE_END.len());
    }
}
