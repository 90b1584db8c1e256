//! Constants to 128 bits, cut off.

use super::wide::Wide;

/// The circle's constant.
pub(super) const PI: Wide = Wide::positive(-126, 0xc90fdaa22168c234c4c6628b80dc1cd1);

/// A quarter turn.
pub(super) const HALF_PI: Wide = Wide::positive(-127, 0xc90fdaa22168c234c4c6628b80dc1cd1);

/// An eighth turn.
pub(super) const QUARTER_PI: Wide = Wide::positive(-128, 0xc90fdaa22168c234c4c6628b80dc1cd1);

/// The natural logarithm of two.
pub(super) const LN_2: Wide = Wide::positive(-128, 0xb17217f7d1cf79abc9e3b39803f2f6af);

/// Two over the natural logarithm of two.
pub(super) const TWO_OVER_LN_2: Wide = Wide::positive(-126, 0xb8aa3b295c17f0bbbe87fed0691d3e88);

/// The binary logarithm of ten.
pub(super) const LOG2_10: Wide = Wide::positive(-126, 0xd49a784bcd1b8afe492bf6ff4dafdb4c);

/// The binary logarithm of e.
pub(super) const LOG2_E: Wide = Wide::positive(-127, 0xb8aa3b295c17f0bbbe87fed0691d3e88);

/// The decimal logarithm of two.
pub(super) const LOG10_2: Wide = Wide::positive(-129, 0x9a209a84fbcff7988f8959ac0b7c9178);

/// The arc tangents of one to sixteen sixteenths.
pub(super) const ARC_TANGENTS: [Wide; 16] = [
    Wide::positive(-132, 0xffaaddb967ef4e36cb2792dc0e2e0d51),
    Wide::positive(-131, 0xfeadd4d5617b6e32c897989f3e888ef7),
    Wide::positive(-130, 0xbdcbda5e72d811347b0b4f881c9c7487),
    Wide::positive(-130, 0xfadbafc96406eb156dc79ef5f7a217e5),
    Wide::positive(-129, 0x9b13b9b83f5e5e69c5abb498d27af328),
    Wide::positive(-129, 0xb7b0ca0f26f784738aa32122dcfe4483),
    Wide::positive(-129, 0xd327761e611fe5b6427c95e9001e7136),
    Wide::positive(-129, 0xed63382b0dda7b456fe445ecbc3a8d03),
    Wide::positive(-128, 0x832bf4a6d9867e2a4b6a09cb61a515c0),
    Wide::positive(-128, 0x8f005d5ef7f59f9b5c835e1665c43747),
    Wide::positive(-128, 0x9a2f80e671bdda204226f8e2204ff3bc),
    Wide::positive(-128, 0xa4bc7d1934f7092419a87f2a457dac9e),
    Wide::positive(-128, 0xaeac4c38b4d8c08014725e2f3e52070a),
    Wide::positive(-128, 0xb8053e2bc2319e73cb2da55210a4443d),
    Wide::positive(-128, 0xc0ce85b8ac52664089dd62c46e92fa24),
    Wide::positive(-128, 0xc90fdaa22168c234c4c6628b80dc1cd1),
];
