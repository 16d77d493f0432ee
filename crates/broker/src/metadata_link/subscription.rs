//! The stream of metadata: an image first if need be, then records, folded as they come (C-1).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tracing::{debug, info, warn};

use ottla_metadata::{Image, Record, decode};
use ottla_rpc::controller::{MetadataUpdate, SubscribeRequest};

use crate::shard::input::Changed;

use super::Inner;

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_millis(50);
const OPEN_TIMEOUT: Duration = Duration::from_millis(2_000);

/// The task's life.
pub(super) async fn run(inner: &Arc<Inner>) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let updated = subscribe(inner).await;
        inner.metrics.metadata_errors.one();
        back_off = if updated {
            BACK_OFF_MIN
        } else {
            (back_off * 2).min(BACK_OFF_MAX)
        };
        tokio::time::sleep(back_off).await;
    }
}

/// True if the stream brought anything.
async fn subscribe(inner: &Arc<Inner>) -> bool {
    let Some((id, address)) = inner.controller() else {
        return false;
    };
    let request = SubscribeRequest {
        cluster_id: inner.cluster_id(),
        broker_id: inner.config.broker_id.get(),
        from_index: inner.image.load().index,
    };
    let opening = async {
        let mut client = inner
            .client(&address)
            .await
            .map_err(|error| error.to_string())?;
        let updates = client.subscribe(request).await;
        updates
            .map(tonic::Response::into_inner)
            .map_err(|status| status.to_string())
    };
    let mut updates = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(updates)) => updates,
        Ok(Err(reason)) => {
            debug!(%address, %reason, "metadata stream not opened");
            inner.rotate(&address);
            return false;
        }
        Err(_) => {
            inner.forget(&address);
            inner.rotate(&address);
            return false;
        }
    };
    let mut active = inner.active.subscribe();
    let mut updated = false;
    loop {
        let update = tokio::select! {
            update = updates.message() => update,
            Ok(()) = active.changed() => {
                let elsewhere = active.borrow_and_update().as_ref().is_some_and(|(_, now)| *now != address);
                if elsewhere {
                    return updated;
                }
                continue;
            }
        };
        match update {
            Ok(Some(update)) => {
                if let Err(reason) = fold(inner, &update) {
                    warn!(%address, %reason, "metadata update refused");
                    return updated;
                }
                inner.found_active(id, &address);
                updated = true;
            }
            Ok(None) => {
                inner.rotate(&address);
                return updated;
            }
            Err(error) => {
                debug!(%address, %error, "metadata stream broke");
                inner.rotate(&address);
                return updated;
            }
        }
    }
}

/// Folds one update into the image and tells the shards what it touched.
fn fold(inner: &Inner, update: &MetadataUpdate) -> Result<(), String> {
    let current = inner.image.load_full();
    let mut changed = Changed::default();
    let mut image = match &update.image {
        Some(bytes) => {
            let image: Image = decode(bytes).map_err(|error| format!("image: {error}"))?;
            if image.index < current.index {
                return Err(format!(
                    "image at {} is behind {}",
                    image.index, current.index
                ));
            }
            info!(
                index = image.index,
                topics = image.topics.len(),
                "metadata image"
            );
            changed.all = true;
            image
        }
        None if update.index < current.index => return Ok(()),
        None => Image::clone(&current),
    };
    let records: Vec<Record> = if update.records.is_empty() {
        Vec::new()
    } else {
        decode(&update.records).map_err(|error| format!("records: {error}"))?
    };
    for record in &records {
        note(&mut changed, record);
    }
    let ours = inner.config.cluster_id.as_ref();
    image.fold(update.index.max(image.index), &records);
    if let (Some(ours), Some(theirs)) = (ours, &image.cluster_id)
        && ours != theirs
    {
        let reason = format!("the quorum is of cluster {theirs:?}, this broker of {ours:?}");
        inner.refused.send_replace(Some(reason.clone()));
        return Err(reason);
    }
    inner.metrics.metadata_updates.one();
    inner
        .applied_index
        .store(update.applied_index.max(image.index), Ordering::Relaxed);
    let image = Arc::new(image);
    inner.image.store(Arc::clone(&image));
    (inner.feed)(Arc::clone(&image), changed);
    inner.image_index.send_replace(image.index);
    Ok(())
}

fn note(changed: &mut Changed, record: &Record) {
    match record {
        Record::Partition { id, .. } => changed.partitions.push(*id),
        Record::RemoveTopic { topic_id } => changed.removed_topics.push(*topic_id),
        Record::Broker(_) | Record::RemoveBroker { .. } => changed.brokers = true,
        Record::Config { .. } => changed.configs = true,
        Record::Cluster { .. }
        | Record::Topic { .. }
        | Record::ProducerIds { .. }
        | Record::Feature { .. } => {}
    }
}
