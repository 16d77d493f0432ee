//! The Prometheus text format: one `# HELP` and `# TYPE` a name, then its samples.

use std::fmt::Write as _;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// It only grows, until the process restarts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound, their sum and their number.
    Histogram,
}

/// A metric's name, kind and one sentence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    /// The name on the page.
    pub(crate) name: &'static str,
    /// Its kind.
    pub(crate) kind: MetricKind,
    /// What it says.
    pub(crate) help: &'static str,
}

/// A page under construction. The samples of one metric are written together.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
    current: &'static str,
}

impl Page {
    /// The finished text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// A counter or gauge without labels.
    pub(crate) fn number(&mut self, metric: &Metric, value: impl Into<Sample>) {
        self.labelled(metric, "", value);
    }

    /// A counter or gauge with labels, written `name="value"`.
    pub(crate) fn labelled(&mut self, metric: &Metric, labels: &str, value: impl Into<Sample>) {
        self.head(metric);
        self.line(metric.name, "", labels, value.into());
    }

    /// A histogram: counts that are not cumulative, one more than there are bounds.
    pub(crate) fn histogram(
        &mut self,
        metric: &Metric,
        labels: &str,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        self.head(metric);
        let separator = if labels.is_empty() { "" } else { "," };
        let mut total: u64 = 0;
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        for (bound, count) in bounds.zip(counts) {
            total = total.saturating_add(*count);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
            let labels = format!("{labels}{separator}le=\"{bound}\"");
            self.line(metric.name, "_bucket", &labels, total.into());
        }
        self.line(metric.name, "_sum", labels, sum.into());
        self.line(metric.name, "_count", labels, total.into());
    }

    fn head(&mut self, metric: &Metric) {
        if self.current == metric.name {
            return;
        }
        self.current = metric.name;
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let (name, help) = (metric.name, metric.help);
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &str, value: Sample) {
        let _ = match (labels.is_empty(), value) {
            (true, Sample::Whole(value)) => writeln!(self.text, "{name}{suffix} {value}"),
            (true, Sample::Real(value)) => writeln!(self.text, "{name}{suffix} {value}"),
            (false, Sample::Whole(value)) => {
                writeln!(self.text, "{name}{suffix}{{{labels}}} {value}")
            }
            (false, Sample::Real(value)) => {
                writeln!(self.text, "{name}{suffix}{{{labels}}} {value}")
            }
        };
    }
}

/// A value on the page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sample {
    /// A count.
    Whole(i128),
    /// A measure.
    Real(f64),
}

impl From<u64> for Sample {
    fn from(value: u64) -> Sample {
        Sample::Whole(value.into())
    }
}

impl From<usize> for Sample {
    fn from(value: usize) -> Sample {
        u64::try_from(value).unwrap_or(u64::MAX).into()
    }
}

impl From<i64> for Sample {
    fn from(value: i64) -> Sample {
        Sample::Whole(value.into())
    }
}

impl From<bool> for Sample {
    fn from(value: bool) -> Sample {
        Sample::Whole(value.into())
    }
}

impl From<f64> for Sample {
    fn from(value: f64) -> Sample {
        Sample::Real(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_metric_share_one_head_and_histograms_accumulate() {
        const A: Metric = Metric {
            name: "a",
            kind: MetricKind::Gauge,
            help: "A.",
        };
        const B: Metric = Metric {
            name: "b",
            kind: MetricKind::Histogram,
            help: "B.",
        };
        let mut page = Page::default();
        page.labelled(&A, "x=\"1\"", 1_u64);
        page.labelled(&A, "x=\"2\"", 0.5);
        page.histogram(&B, "", &[0.1, 1.0], &[1, 2, 3], 4.5);
        assert_eq!(
            page.finish(),
            "# HELP a A.\n# TYPE a gauge\na{x=\"1\"} 1\na{x=\"2\"} 0.5\n\
             # HELP b B.\n# TYPE b histogram\nb_bucket{le=\"0.1\"} 1\nb_bucket{le=\"1\"} 3\n\
             b_bucket{le=\"+Inf\"} 6\nb_sum 4.5\nb_count 6\n"
        );
    }
}
