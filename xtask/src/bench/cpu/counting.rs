//! How many instructions a program took: of those that the whole machine had executed when the runner printed that the program
//! begins and that it has ended.

use super::programs::{BEGIN, END};

/// The instructions between a program's lines in what `understudy run --line-counts` wrote; none if they are not there.
pub fn instructions(line_counts: &str, program: &str) -> Option<u64> {
    let begin = count_at(line_counts, &format!("{BEGIN}{program}"))?;
    let end = count_at(line_counts, &format!("{END}{program} "))?;
    end.checked_sub(begin)
}

/// The count of the first line that begins so.
fn count_at(line_counts: &str, text: &str) -> Option<u64> {
    line_counts.lines().find_map(|line| {
        let (count, printed) = line.split_once(' ')?;
        printed.starts_with(text).then(|| count.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_took_what_is_between_its_lines() {
        let counts = "5 bench: ready\n10 bench: begin sort\n110 bench: end sort 1\n111 bench: begin sha256\n";
        assert_eq!(instructions(counts, "sort"), Some(100));
        assert_eq!(instructions(counts, "sha256"), None);
        assert_eq!(instructions("", "sort"), None);
    }
}
