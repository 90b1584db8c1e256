//! Answers of DNS that do not fit into a datagram that fits into a frame.

/// The header (RFC 1035, 4.1.1).
const HEADER_LENGTH: usize = 12;
/// TC in the third octet.
const TRUNCATED: u8 = 0x02;
/// A name, with its lengths, is no longer (RFC 1035, 2.3.4).
const MAX_NAME_LENGTH: usize = 255;

/// The answer cut down to its question, with TC set, so that the guest asks again over TCP (RFC
/// 2181, section 9). `None` when it is no answer with one question.
pub(crate) fn truncated(answer: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = answer.split_at_checked(HEADER_LENGTH)?;
    if header[4..6] != [0, 1] {
        return None;
    }
    let mut name = 0;
    loop {
        let length = usize::from(*rest.get(name)?);
        name += 1 + length;
        if length == 0 {
            break;
        }
        if length > 63 || name > MAX_NAME_LENGTH {
            return None;
        }
    }
    let question = rest.get(..name + 4)?;
    let mut cut = [header, question].concat();
    cut[2] |= TRUNCATED;
    cut[6..HEADER_LENGTH].fill(0);
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_2181_9_a_long_answer_becomes_its_question_with_tc() {
        let mut answer = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 90, 0, 1, 0, 1];
        answer.extend(b"\x07example\x00\x00\x10\x00\x01");
        let question = answer.len();
        answer.resize(3000, 7);
        let cut = truncated(&answer).unwrap();
        assert_eq!(cut.len(), question);
        assert_eq!(cut[..12], [0x12, 0x34, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cut[12..], answer[12..question]);
    }

    #[test]
    fn nonsense_is_no_answer() {
        for bytes in [
            &[][..],
            &[0; 12],
            &[1; 400],
            &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64],
        ] {
            assert_eq!(truncated(bytes), None);
        }
    }
}
