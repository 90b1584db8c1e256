//! A private apt: its own lists, cache and configuration in a directory of the user's, for the
//! guest's architecture, without root and without touching the machine's own packages. apt checks every signature and
//! checksum.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::apt_sources::{debian_archive, debian_keyring};
use crate::output;
use crate::package::{Package, program_error};
use crate::progress::Progress;
use crate::{Architecture, GuestImageError};

/// Where fetched packages are kept. Not apt's own directory: apt leaves out of a closure what it finds
/// there.
const PACKAGES: &str = "packages";
/// Package lists younger than this are used as they are.
const LISTS_FRESH_FOR: Duration = Duration::from_secs(24 * 3600);
/// Makes apt say how far it is.
const STATUS_TO_OUTPUT: &str = "-oAPT::Status-Fd=1";
/// The settings of the machine's own apt that are about how to reach the network.
const NETWORK_SETTINGS: &[&str] = &[
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::ftp::",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
    "Acquire::ProxyAutoDetect",
];

/// A private apt. Only one is at work on its directory at a time.
pub struct Apt {
    directory: PathBuf,
    architecture: Architecture,
    suite: &'static str,
    archive: String,
    _lock: File,
}

impl Apt {
    /// Prepares a private apt in `directory` (made if missing) for an architecture, a suite and the archive at
    /// `mirror`, or else for the one that this machine's apt uses. Waits while another build uses the directory.
    ///
    /// # Errors
    /// If apt, the keys of Debian's archive or an archive are missing, or the directory cannot be
    /// written.
    pub fn open(
        directory: &Path,
        architecture: Architecture,
        suite: &'static str,
        mirror: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Self, GuestImageError> {
        // apt starts in other directories too, where a relative path would lead to the machine's own
        // configuration.
        let directory = &absolute(directory)?;
        for part in ["state/lists/partial", "archives/partial", PACKAGES] {
            let path = directory.join(part);
            fs::create_dir_all(&path)
                .map_err(|error| GuestImageError::file("creating a directory", &path, error))?;
        }
        let lock = lock(directory, progress)?;
        output::remove_partials(directory);
        let archive = match mirror {
            Some(mirror) => checked_mirror(mirror)?,
            None => debian_archive(Path::new("/etc/apt"))?,
        };
        let apt = Self {
            directory: directory.to_owned(),
            architecture,
            suite,
            archive,
            _lock: lock,
        };
        apt.write_configuration()?;
        Ok(apt)
    }

    /// The archive's address.
    pub fn archive(&self) -> &str {
        &self.archive
    }

    /// Fetches the package lists, unless those at hand are of this archive and younger than a day
    /// (`force`: even then). Lists from before are used if the archive cannot be reached.
    ///
    /// # Errors
    /// [`GuestImageError::ListsUnavailable`] if there are no lists in the end.
    pub fn update(&self, force: bool, progress: &mut dyn Progress) -> Result<(), GuestImageError> {
        let stamp = self.directory.join("state/updated");
        let at_hand = fs::read_to_string(&stamp).is_ok_and(|archive| archive == self.archive);
        let age = fs::metadata(&stamp)
            .and_then(|metadata| metadata.modified())
            .ok();
        let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
        if at_hand && !force && age.is_some_and(|age| age < LISTS_FRESH_FOR) {
            return Ok(());
        }
        let step = "fetching Debian's package lists";
        progress.on_step(step, 0, 100);
        let mut command = self.command("apt-get");
        command.args([
            "update",
            "-q",
            STATUS_TO_OUTPUT,
            "-oAPT::Update::Error-Mode=any",
        ]);
        let outcome = self.run_with_progress(command, step, progress)?;
        match outcome {
            Ok(()) => fs::write(&stamp, &self.archive)
                .map_err(|error| GuestImageError::file("writing a stamp", &stamp, error)),
            Err(_) if at_hand => {
                progress.on_step(
                    "the network is out of reach: using the lists from before",
                    0,
                    0,
                );
                Ok(())
            }
            Err(message) if is_full_disk(&message) => Err(GuestImageError::NoSpace {
                path: self.directory.clone(),
            }),
            Err(message) => Err(GuestImageError::ListsUnavailable {
                archive: self.archive.clone(),
                message,
            }),
        }
    }

    /// The file names (`NAME_VERSION_ARCHITECTURE.deb`) of `packages` and all that they depend on.
    /// Recommended packages are left out.
    ///
    /// # Errors
    /// [`GuestImageError::Unresolvable`] if a package is unknown or conflicts with another.
    pub fn closure(&self, packages: &[String]) -> Result<Vec<PackageFile>, GuestImageError> {
        self.print_uris("install", packages)
    }

    /// The file names of `packages` alone.
    ///
    /// # Errors
    /// As [`Apt::closure`].
    pub fn without_dependencies(
        &self,
        packages: &[String],
    ) -> Result<Vec<PackageFile>, GuestImageError> {
        self.print_uris("download", packages)
    }

    /// The package that the meta-package `name` stands for: its first dependency that begins with
    /// `prefix` (such as `linux-image-6.12.0-riscv64` for `linux-image-riscv64`).
    ///
    /// # Errors
    /// [`GuestImageError::Unresolvable`] if there is none.
    pub fn behind_meta_package(&self, name: &str, prefix: &str) -> Result<String, GuestImageError> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", "--", name]);
        let output = self.output(command)?;
        let depends = output
            .lines()
            .find_map(|line| line.strip_prefix("Depends:"));
        let mut alternatives = depends.unwrap_or_default().split([',', '|']);
        let found = alternatives.find_map(|alternative| {
            alternative
                .split_whitespace()
                .next()
                .filter(|package| package.starts_with(prefix))
        });
        found
            .map(str::to_owned)
            .ok_or_else(|| GuestImageError::Unresolvable {
                packages: name.to_owned(),
                architecture: self.architecture,
                message: format!("{name} depends on nothing that begins with {prefix}"),
            })
    }

    /// Fetches those of `files` that are not in the cache. Returns all, in the order of `files`.
    ///
    /// # Errors
    /// [`GuestImageError::DownloadFailed`], [`GuestImageError::NoSpace`].
    pub fn fetch(
        &self,
        files: &[PackageFile],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Package>, GuestImageError> {
        let archives = self.directory.join(PACKAGES);
        let missing: Vec<&PackageFile> = files
            .iter()
            .filter(|file| {
                let present = fs::metadata(archives.join(&file.name));
                !present.is_ok_and(|metadata| metadata.len() == file.bytes)
            })
            .collect();
        if !missing.is_empty() {
            self.download(&missing, &archives, progress)?;
        }
        files
            .iter()
            .map(|file| {
                let path = archives.join(&file.name);
                Package::from_path(&path)
                    .filter(|_| path.is_file())
                    .ok_or_else(|| GuestImageError::DownloadFailed {
                        message: format!("{} did not arrive", file.name),
                    })
            })
            .collect()
    }

    /// Downloads into a directory of its own and moves what is complete to `archives`, so that an
    /// interrupted download leaves nothing that could be taken for a package.
    fn download(
        &self,
        files: &[&PackageFile],
        archives: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), GuestImageError> {
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let step = format!(
            "fetching {} Debian packages ({} MB)",
            files.len(),
            bytes.div_ceil(1_000_000)
        );
        progress.on_step(&step, 0, 100);
        let arriving = tempfile::Builder::new()
            .prefix(output::PARTIAL_PREFIX)
            .tempdir_in(&self.directory)
            .map_err(|error| {
                GuestImageError::file("creating a directory", &self.directory, error)
            })?;
        let mut command = self.command("apt-get");
        command
            .args(["download", "-q", STATUS_TO_OUTPUT, "--"])
            .current_dir(arriving.path());
        for file in files {
            command.arg(file.specification()?);
        }
        let outcome = self.run_with_progress(command, &step, progress)?;
        for file in files {
            let (from, to) = (arriving.path().join(&file.name), archives.join(&file.name));
            let complete = fs::metadata(&from).is_ok_and(|metadata| metadata.len() == file.bytes);
            if complete {
                fs::rename(&from, &to)
                    .map_err(|error| GuestImageError::file("keeping a package", &to, error))?;
            }
        }
        outcome.map_err(|message| self.download_error(message))
    }

    fn download_error(&self, message: String) -> GuestImageError {
        if is_full_disk(&message) {
            return GuestImageError::NoSpace {
                path: self.directory.clone(),
            };
        }
        GuestImageError::DownloadFailed { message }
    }

    fn print_uris(
        &self,
        action: &str,
        packages: &[String],
    ) -> Result<Vec<PackageFile>, GuestImageError> {
        let mut command = self.command("apt-get");
        command.args([
            action,
            "--print-uris",
            "-qq",
            "-y",
            "--no-install-recommends",
            "--",
        ]);
        command.args(packages);
        let output = self.output(command).map_err(|error| match error {
            GuestImageError::ProgramFailed { message, .. } => GuestImageError::Unresolvable {
                packages: packages.join(" "),
                architecture: self.architecture,
                message,
            },
            error => error,
        })?;
        Ok(output
            .lines()
            .filter_map(PackageFile::from_uri_line)
            .collect())
    }

    fn command(&self, program: &'static str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.configuration())
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }

    fn output(&self, mut command: Command) -> Result<String, GuestImageError> {
        let output = command
            .output()
            .map_err(|error| program_error(error, "apt-get", "apt", &self.directory))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = errors_of(&String::from_utf8_lossy(&output.stderr));
        Err(GuestImageError::ProgramFailed {
            program: "apt-get",
            message,
        })
    }

    /// Runs apt, which has been told [`STATUS_TO_OUTPUT`], and passes on how far it is. The inner result holds apt's words if it fails.
    fn run_with_progress(
        &self,
        mut command: Command,
        step: &str,
        progress: &mut dyn Progress,
    ) -> Result<Result<(), String>, GuestImageError> {
        let errors_path = self.directory.join("apt-errors");
        let unwritable = |error| GuestImageError::file("writing apt's errors", &errors_path, error);
        let errors = File::create(&errors_path).map_err(unwritable)?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| program_error(error, "apt-get", "apt", &self.directory))?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(percent) = status_percent(&line) {
                    progress.on_step(step, percent.min(99), 100);
                }
            }
        }
        let status = child
            .wait()
            .map_err(|error| GuestImageError::file("waiting for apt", &self.directory, error))?;
        if status.success() {
            progress.on_step(step, 100, 100);
            return Ok(Ok(()));
        }
        let mut message = Vec::new();
        File::open(&errors_path)
            .and_then(|mut file| file.read_to_end(&mut message))
            .map_err(unwritable)?;
        Ok(Err(errors_of(&String::from_utf8_lossy(&message))))
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    fn write_configuration(&self) -> Result<(), GuestImageError> {
        let keyring = debian_keyring()?;
        let architecture = self.architecture;
        let source = format!(
            "deb [arch={architecture} signed-by={}] {} {} main\n",
            keyring.display(),
            self.archive,
            self.suite
        );
        write_private(&self.directory.join("sources.list"), &source)?;
        write_private(&self.directory.join("status"), "")?;
        let network = self.network_settings()?;
        let directory = self.directory.display();
        let text = format!(
            "APT::Architecture \"{architecture}\";\n\
             APT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Dir::State \"{directory}/state\";\n\
             Dir::State::status \"{directory}/status\";\n\
             Dir::Cache \"{directory}\";\n\
             Dir::Cache::archives \"archives\";\n\
             Dir::Log \"{directory}\";\n\
             Dir::Etc::sourcelist \"{directory}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::main \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             {network}"
        );
        write_private(&self.configuration(), &text)
    }

    /// The machine's own settings about proxies and the like, in apt's syntax.
    fn network_settings(&self) -> Result<String, GuestImageError> {
        let output = Command::new("apt-config")
            .arg("dump")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| program_error(error, "apt-config", "apt", &self.directory))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let kept = text.lines().filter(|line| {
            NETWORK_SETTINGS
                .iter()
                .any(|setting| line.starts_with(setting))
        });
        Ok(kept.flat_map(|line| [line, "\n"]).collect())
    }
}

/// A package file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// `NAME_VERSION_ARCHITECTURE.deb`
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

impl PackageFile {
    /// Reads a line of `apt-get --print-uris`: `'URI' FILE BYTES HASH`.
    fn from_uri_line(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_prefix('\'')?.split_once('\'')?;
        let mut words = rest.split_whitespace();
        let (name, bytes) = (words.next()?, words.next()?.parse().ok()?);
        Package::from_path(Path::new(name))?;
        (!name.contains('/')).then(|| Self {
            name: name.to_owned(),
            bytes,
        })
    }

    /// The package's name alone.
    pub fn package_name(&self) -> &str {
        self.name.split('_').next().unwrap_or_default()
    }

    /// What apt calls exactly this package.
    fn specification(&self) -> Result<String, GuestImageError> {
        Package::from_path(Path::new(&self.name))
            .map(|package| format!("{}={}", package.name, package.version))
            .ok_or_else(|| GuestImageError::DownloadFailed {
                message: format!("{} is no package's file name", self.name),
            })
    }
}

fn lock(directory: &Path, progress: &mut dyn Progress) -> Result<File, GuestImageError> {
    let path = directory.join("lock");
    let failed = |error| GuestImageError::file("locking the cache", &path, error);
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            progress.on_step("waiting for another build that uses the same cache", 0, 0);
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.lock().map_err(failed)?;
    Ok(file)
}

fn checked_mirror(mirror: &str) -> Result<String, GuestImageError> {
    let good =
        mirror.contains(':') && !mirror.contains(|c: char| c.is_whitespace() || "[]\"".contains(c));
    if good {
        Ok(mirror.to_owned())
    } else {
        Err(GuestImageError::BadOptions(format!(
            "`{mirror}` is not the address of a Debian archive, such as http://HOST/debian"
        )))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, GuestImageError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| GuestImageError::file("finding the absolute path", path, error))?;
    if absolute
        .to_str()
        .is_none_or(|text| text.contains(['"', ';', '\n']))
    {
        return Err(GuestImageError::BadOptions(format!(
            "{}: apt cannot use a directory whose name is not UTF-8 or has a quote or a semicolon",
            absolute.display()
        )));
    }
    Ok(absolute)
}

/// Writes a file that only its owner can read: a proxy's address may hold a password.
fn write_private(path: &Path, text: &str) -> Result<(), GuestImageError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| GuestImageError::file("writing apt's configuration", path, error))
}

/// The percentage in a line of apt's status stream, `dlstatus:ITEM:PERCENT:TEXT`.
fn status_percent(line: &str) -> Option<u64> {
    let percent = line.strip_prefix("dlstatus:")?.split(':').nth(1)?;
    let percent: f64 = percent.parse().ok()?;
    Some(percent.clamp(0.0, 100.0) as u64)
}

fn is_full_disk(message: &str) -> bool {
    message.contains("No space left") || message.contains("enough free space")
}

/// The lines of apt's complaints that are errors, or all of them, on one line.
fn errors_of(text: &str) -> String {
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("E: "))
        .collect();
    if errors.is_empty() {
        text.trim().replace('\n', " ")
    } else {
        errors.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_print_uris_gives_file_and_length() {
        let line = "'http://h/debian/pool/main/o/opensbi/opensbi_1.6-1_all.deb' opensbi_1.6-1_all.deb 204072 SHA256:00ff";
        let file = PackageFile::from_uri_line(line).unwrap();
        assert_eq!(
            file,
            PackageFile {
                name: "opensbi_1.6-1_all.deb".into(),
                bytes: 204_072
            }
        );
        assert_eq!(file.package_name(), "opensbi");
        assert_eq!(file.specification().unwrap(), "opensbi=1.6-1");
    }

    #[test]
    fn lines_of_print_uris_that_are_none_are_passed_over() {
        for line in [
            "",
            "E: x",
            "'http://h/x' ../../x_1_all.deb 5 SHA256:0",
            "'u' x.deb 5 H",
            "'u' a_1_all.deb x H",
        ] {
            assert_eq!(PackageFile::from_uri_line(line), None, "{line}");
        }
    }

    #[test]
    fn the_status_stream_gives_the_percentage() {
        assert_eq!(
            status_percent("dlstatus:3:42.0937:Retrieving file 3 of 9"),
            Some(42)
        );
        assert_eq!(status_percent("dlstatus:3:NaN:x"), Some(0));
        assert_eq!(status_percent("Get:1 http://x"), None);
    }

    #[test]
    fn only_errors_are_quoted_when_there_are_any() {
        assert_eq!(
            errors_of("W: old\nE: Unable to locate package nosuch\n"),
            "Unable to locate package nosuch"
        );
        assert_eq!(errors_of("something\nelse\n"), "something else");
    }

    #[test]
    fn a_mirror_cannot_smuggle_settings_into_the_source_line() {
        assert!(checked_mirror("http://h/debian trixie main\ndeb http://evil").is_err());
        assert!(checked_mirror("http://h/debian").is_ok());
    }
}
