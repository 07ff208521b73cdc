//! Exact comparison, of numbers no float can hold and of exponents no memory can.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(left: &str, expected: Ordering, right: &str) {
    let parse = |text| Decimal::parse(text).unwrap_or_else(|| panic!("{text} is a number"));
    assert_eq!(parse(left).cmp(&parse(right)), expected, "{left} against {right}");
    assert_eq!(parse(right).cmp(&parse(left)), expected.reverse(), "{right} against {left}");
    assert_eq!(parse(left).canonical() == parse(right).canonical(), expected.is_eq(), "{left} {right}");
}

#[test]
fn numbers_compare_by_their_digits() {
    use Ordering::{Equal, Greater, Less};
    check("1", Equal, "1.0");
    check("1", Equal, "1e0");
    check("100", Equal, "1E+2");
    check("0.05", Equal, "5e-2");
    check("0.050", Equal, "0.0005e2");
    check("120.50", Equal, "1205e-1");
    check("0", Equal, "-0.000e5");
    check("9007199254740993", Greater, "9007199254740992");
    check("0.1", Less, "0.10000000000000000000000000000000001");
    check("100", Less, "100.00000000000000000000000000000000000001");
    check("-2", Less, "-1");
    check("-1", Less, "0");
    check("-1e9", Less, "1e-9");
    check("10", Greater, "9");
    check("99", Less, "100");
    check("101", Greater, "1e2");
    check("1.09", Less, "1.1");
    check("1e1000000000", Greater, "999999999999999999999999999999");
    check("1e-1000000000", Less, "0.0000000001");
    check("1e1000000000", Less, "2e1000000000");
    check("-1e1000000000", Less, "1");
    check("1e99999999999999999999", Less, "1e100000000000000000000");
    check("10e999999999", Equal, "1e1000000000");
}

#[test]
fn what_is_no_number_and_what_is_out_of_reach_is_refused() {
    for text in
        ["", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "1_000", " 1", "NaN", "inf", "1e5.5", "--1"]
    {
        assert!(Decimal::parse(text).is_none(), "{text:?}");
    }
    assert!(Decimal::parse(&format!("1e{}", "9".repeat(60))).is_none());
}

proptest! {
    #[test]
    fn integers_compare_as_integers(left: i128, right: i128) {
        let (l, r) = (left.to_string(), right.to_string());
        prop_assert_eq!(Decimal::parse(&l).unwrap().cmp(&Decimal::parse(&r).unwrap()), left.cmp(&right));
    }

    #[test]
    fn shifting_the_point_changes_nothing(number: i64, shift in 0usize..30) {
        let plain = number.to_string();
        let shifted = format!("{number}{}e-{shift}", "0".repeat(shift));
        prop_assert_eq!(Decimal::parse(&plain).unwrap().canonical(), Decimal::parse(&shifted).unwrap().canonical());
    }

    #[test]
    fn the_order_is_total(texts in prop::collection::vec("-?[0-9]{1,4}(\\.[0-9]{1,3})?(e-?[0-9]{1,2})?", 3)) {
        let [a, b, c] = [0, 1, 2].map(|at| Decimal::parse(&texts[at]).unwrap());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        prop_assert_eq!(a == b, a.canonical() == b.canonical());
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = Decimal::parse(&text).map(|number| number.canonical());
    }
}
