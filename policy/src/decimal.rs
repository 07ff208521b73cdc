//! Numbers compared as the exact decimals their digits say: no `f64`, and no expanding of exponents.

use std::cmp::Ordering;

/// A JSON number by its digits. Comparing costs time linear in the digits that were written, so
/// `1e1000000000` is as cheap as `1`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal<'a> {
    negative: bool,
    /// The digits without leading and trailing zeros, in two pieces as the point splits them; both
    /// empty for zero.
    whole: &'a str,
    fraction: &'a str,
    /// The value is 0.DIGITS times ten to this power.
    power: i128,
}

impl<'a> Decimal<'a> {
    /// Reads a JSON number (RFC 8259; a leading `+` is tolerated). `None` for what is no number, and for
    /// an exponent beyond 126 bits: such a number is not compared but counts as wrongly typed.
    pub(crate) fn parse(text: &'a str) -> Option<Decimal<'a>> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let exponent = match exponent {
            None => 0,
            Some(text) => parse_exponent(text)?,
        };
        let mut power = exponent.checked_add(i128::try_from(whole.len()).ok()?)?;
        let stripped = whole.trim_start_matches('0');
        power -= (whole.len() - stripped.len()) as i128;
        let (whole, mut fraction) = (stripped, fraction.trim_end_matches('0'));
        if whole.is_empty() {
            let stripped = fraction.trim_start_matches('0');
            power -= (fraction.len() - stripped.len()) as i128;
            fraction = stripped;
        }
        let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
        if whole.is_empty() && fraction.is_empty() {
            return Some(Decimal { negative: false, whole, fraction, power: 0 });
        }
        Some(Decimal { negative, whole, fraction, power })
    }

    /// The same text for equal numbers: digits and a power of ten, or the plain integer where that is short.
    pub(crate) fn canonical(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let (whole, fraction) = (self.whole, self.fraction);
        let count = (whole.len() + fraction.len()) as i128;
        let zeros = self.power - count;
        match usize::try_from(zeros) {
            _ if count == 0 => "0".to_owned(),
            Ok(zeros) if zeros <= 18 => format!("{sign}{whole}{fraction}{}", "0".repeat(zeros)),
            _ => format!("{sign}{whole}{fraction}e{zeros}"),
        }
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn digits(&self) -> impl Iterator<Item = u8> + 'a {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    /// -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.is_zero(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_sign = self.sign().cmp(&other.sign());
        if by_sign.is_ne() || self.is_zero() {
            return by_sign;
        }
        // Without leading zeros the power decides; with equal powers the digits do, and as trailing
        // zeros are gone too, a prefix is the smaller one.
        let by_size = self.power.cmp(&other.power).then_with(|| self.digits().cmp(other.digits()));
        if self.negative { by_size.reverse() } else { by_size }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal<'_> {}

fn parse_exponent(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let exponent: i128 = text.parse().ok()?;
    // Room to add the number of digits without overflow.
    (exponent.unsigned_abs() < 1 << 126).then_some(exponent)
}

#[cfg(test)]
mod tests;
