use super::*;

#[test]
fn so_many_failures_in_a_row_open_it() {
    let now = crate::time::now();
    let mut breaker = Breaker::new(Settings::default(), 0);
    for _ in 0..4 {
        let pass = breaker.take(now).unwrap();
        assert_eq!(breaker.failed(now, pass), None);
    }
    let pass = breaker.take(now).unwrap();
    assert_eq!(breaker.failed(now, pass), Some(Duration::from_secs(10)));
}
