//! The queue by itself, and against a naive count of what there is to take.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;

use super::*;

/// Whether its turn has come.
fn is_called(turn: &Turn<'_>) -> bool {
    turn.comes(Instant::now() + Duration::from_secs(9)).now_or_never().unwrap_or(false)
}

#[tokio::test]
async fn who_was_called_for_nothing_is_still_the_next() {
    let places = Places::new(1);
    let [first, second, third] = [(); 3].map(|()| places.queue());
    places.call_next();
    places.call_next();
    assert_eq!([&first, &second, &third].map(is_called), [true, true, false]);
    drop(first);
    places.call_next();
    assert_eq!([&second, &third].map(is_called), [true, false]);
    second.pass_on();
    assert_eq!([&second, &third].map(is_called), [false, true]);
    places.call_all();
    assert_eq!([&second, &third].map(is_called), [true, true]);
}

#[tokio::test]
async fn no_call_is_lost_on_who_leaves_nor_on_who_is_still_to_come() {
    let places = Places::new(1);
    let [first, second] = [(); 2].map(|()| places.queue());
    places.call_next();
    drop(first);
    assert!(is_called(&second), "the first was called and left");
    places.call_next();
    places.call_next();
    let third = places.queue();
    assert_eq!([&second, &third].map(is_called), [true, true], "two places were freed before the third came");
    places.call_next();
    drop((second, third));
    assert!(!is_called(&places.queue()), "who finds nobody waiting looks for itself");
}

#[tokio::test]
async fn as_many_who_are_still_to_come_are_called_as_calls_were_over() {
    let places = Places::new(5);
    let waiting = [(); 2].map(|()| places.queue());
    (0..5).for_each(|_| places.call_next());
    let [third, fourth, fifth, sixth] = [(); 4].map(|()| places.queue());
    assert_eq!(waiting.each_ref().map(is_called), [true; 2]);
    assert_eq!([&third, &fourth, &fifth, &sixth].map(is_called), [true, true, true, false]);
}

#[tokio::test]
async fn spare_calls_end_with_what_they_were_for() {
    let places = Places::new(1);
    let first = places.queue();
    (0..3).for_each(|_| places.call_next());
    assert!(is_called(&first));
    first.found_nothing();
    let second = places.queue();
    assert!(!is_called(&second), "the first has shown that there is nothing");
    places.call_next();
    assert_eq!([&first, &second].map(is_called), [true, false]);
    drop((first, second));
    assert!(!is_called(&places.queue()));
}

/// A fixed sequence of numbers for each seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }
}

/// Those who wait, and what there is to take: all that the queue does not know.
struct Naive<'a> {
    places: &'a Places,
    waiting: Vec<Turn<'a>>,
    free: usize,
    calls: usize,
    looks: usize,
}

impl Naive<'_> {
    fn step(&mut self, numbers: &mut Numbers) {
        match numbers.below(9) {
            0..=2 if !self.places.has_queue() && self.free > 0 => self.free -= 1,
            0..=2 => self.waiting.push(self.places.queue()),
            3..=5 => {
                self.free += 1;
                self.call();
            }
            6 => self.call(),
            7 if !self.waiting.is_empty() => drop(self.look(numbers.below(self.waiting.len()))),
            8 if !self.waiting.is_empty() => drop(self.waiting.remove(numbers.below(self.waiting.len()))),
            _ => {}
        }
    }

    fn call(&mut self) {
        self.calls += 1;
        self.places.call_next();
    }

    /// One of them runs. It has done something, if it was called.
    fn look(&mut self, index: usize) -> bool {
        if !is_called(&self.waiting[index]) {
            return false;
        }
        self.looks += 1;
        if self.free > 0 {
            self.free -= 1;
            drop(self.waiting.remove(index));
        } else {
            self.waiting[index].found_nothing();
        }
        true
    }

    /// All who were called run.
    fn settle(&mut self) {
        while (0..self.waiting.len()).any(|index| self.look(index)) {}
    }
}

#[tokio::test]
async fn nobody_waits_beside_what_is_free_and_nobody_looks_without_a_call() {
    for seed in 0..200 {
        let places = Places::new(0);
        let (mut naive, mut numbers) =
            (Naive { places: &places, waiting: Vec::new(), free: 0, calls: 0, looks: 0 }, Numbers(seed));
        for step in 0..200 {
            naive.step(&mut numbers);
            if numbers.below(12) == 0 {
                naive.settle();
                assert!(naive.free == 0 || naive.waiting.is_empty(), "seed {seed}, step {step}");
            }
            assert!(naive.looks <= naive.calls, "seed {seed}, step {step}");
            yield_now().await;
        }
    }
}
