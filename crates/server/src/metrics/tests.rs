//! One scrape with every role: names drift unseen otherwise.

use std::collections::BTreeSet;

use ottla_gateway::{ApiSnapshot, GatewaySnapshot, LATENCY_BUCKETS_SECONDS};

use super::*;

fn whole_page() -> String {
    let mut page = Page::default();
    let numbers = ProcessNumbers {
        resident_bytes: Some(1),
        virtual_bytes: Some(1),
        cpu_seconds: Some(1.0),
        open_files: Some(1),
        threads: Some(1),
    };
    process(&mut page, &numbers, 1.0);
    broker(&mut page, &ottla_broker::MetricsSnapshot::default());
    let api = ApiSnapshot {
        api: "Produce",
        requests: 1,
        errors: 0,
        total_seconds: 0.1,
        buckets: vec![0; LATENCY_BUCKETS_SECONDS.len() + 1],
    };
    let numbers = GatewaySnapshot {
        apis: vec![api],
        connections: 0,
        connections_opened: 0,
        connections_refused: 0,
        requests_refused: 0,
        idle_closed: 0,
        bytes_read: 0,
        bytes_written: 0,
    };
    gateway(&mut page, &numbers);
    controller(&mut page, &ottla_controller::ControllerMetrics::default());
    page.finish()
}

fn names(page: &str) -> Vec<&str> {
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split(' ').next()).collect()
}

#[test]
fn a_scrape_has_every_name_once_and_no_other() {
    let page = whole_page();
    let scraped = names(&page);
    let distinct: BTreeSet<&str> = scraped.iter().copied().collect();
    assert_eq!(distinct.len(), scraped.len(), "a name has two heads");
    let listed: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(distinct, listed);
}

#[test]
fn the_names_are_the_published_ones() {
    let page = whole_page();
    let mut scraped = names(&page);
    scraped.sort_unstable();
    let published: Vec<&str> = include_str!("names.txt").lines().collect();
    assert_eq!(
        scraped, published,
        "dashboards rely on these: change names.txt knowingly"
    );
}

#[test]
fn counters_end_in_total_and_units_are_named() {
    for metric in ALL {
        let counter = metric.kind == MetricKind::Counter;
        assert_eq!(counter, metric.name.ends_with("_total"), "{}", metric.name);
        assert!(!metric.name.ends_with("_total_total"), "{}", metric.name);
        assert!(
            metric.help.ends_with('.') || metric.help.ends_with(')'),
            "{}",
            metric.name
        );
    }
}
