//! A running maximum or minimum over a sliding window in constant space.
//!
//! Keeps the best, second best and third best sample, each later than the one before, so that when the best leaves the
//! window a good estimate is at hand (Kathleen Nichols' algorithm). Time may be any counter that does not fall.

#[derive(Debug, Clone, Copy)]
struct Sample {
    time: u64,
    value: u64,
}

#[derive(Debug)]
pub struct WinFilter {
    best: [Sample; 3],
    empty: bool,
}

impl WinFilter {
    pub fn new(value: u64) -> Self {
        Self { best: [Sample { time: 0, value }; 3], empty: true }
    }

    pub fn get(&self) -> u64 {
        self.best[0].value
    }

    fn reset(&mut self, sample: Sample) {
        self.best = [sample; 3];
        self.empty = false;
    }

    /// Takes a sample; returns the maximum of the last `window`.
    pub fn update_max(&mut self, window: u64, time: u64, value: u64) -> u64 {
        self.update(window, Sample { time, value }, |new, old| new >= old)
    }

    /// Takes a sample; returns the minimum of the last `window`.
    pub fn update_min(&mut self, window: u64, time: u64, value: u64) -> u64 {
        self.update(window, Sample { time, value }, |new, old| new <= old)
    }

    fn update(&mut self, window: u64, new: Sample, beats: impl Fn(u64, u64) -> bool) -> u64 {
        if self.empty
            || beats(new.value, self.best[0].value)
            || new.time - self.best[2].time > window
        {
            self.reset(new);
            return new.value;
        }
        if beats(new.value, self.best[1].value) {
            self.best[1] = new;
            self.best[2] = new;
        } else if beats(new.value, self.best[2].value) {
            self.best[2] = new;
        }
        self.age(window, new);
        self.get()
    }

    fn age(&mut self, window: u64, new: Sample) {
        let age = new.time - self.best[0].time;
        if age > window {
            self.best = [self.best[1], self.best[2], new];
            if new.time - self.best[0].time > window {
                self.best = [self.best[1], self.best[2], new];
            }
        } else if self.best[1].time == self.best[0].time && age > window / 4 {
            // A quarter of the window passed without a second best: take one from the second quarter.
            self.best[1] = new;
            self.best[2] = new;
        } else if self.best[2].time == self.best[1].time && age > window / 2 {
            self.best[2] = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stays_between_last_sample_and_true_extreme(values in proptest::collection::vec((0u64..4, 1u64..1000), 1..200)) {
            let (mut max, mut min) = (WinFilter::new(0), WinFilter::new(0));
            let mut all = Vec::new();
            let mut time = 10;
            for (step, value) in values {
                time += step;
                all.push((time, value));
                let hi = max.update_max(10, time, value);
                let lo = min.update_min(10, time, value);
                let inside = all.iter().filter(|s| time - s.0 <= 10).map(|s| s.1);
                prop_assert!(hi >= value && hi <= inside.clone().max().unwrap());
                prop_assert!(lo <= value && lo >= inside.min().unwrap());
            }
        }
    }

    #[test]
    fn forgets_an_old_peak() {
        let mut filter = WinFilter::new(0);
        filter.update_max(10, 1, 100);
        for t in 2..20 {
            filter.update_max(10, t, 50);
        }
        assert_eq!(filter.get(), 50);
    }
}
