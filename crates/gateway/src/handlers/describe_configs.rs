//! DescribeConfigs: every config of a topic or broker, with where it comes from.

use ottla_config::{ClusterFacts, ConfigEntry, describe_broker, describe_cluster_default};
use ottla_metadata::{ConfigResource, Image};
use ottla_wire::{
    ErrorCode,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{
            DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
        },
    },
};

use super::{
    CountErrors,
    configs::{kind, resource, source},
    count,
};
use crate::{
    config_layers::{self, DynamicLayers, topic_overrides},
    context::RequestContext,
    topic_names,
};

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = cx.image();
    let results = request.resources.iter().map(|resource| {
        let row = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match entries(cx, &image, resource) {
            Ok(entries) => row.with_configs(rows(entries, resource, &request)),
            Err((code, message)) => row
                .with_error_code(code.code())
                .with_error_message(Some(message.into())),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

type Refusal = (ErrorCode, String);

fn entries(
    cx: &RequestContext,
    image: &Image,
    asked: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, Refusal> {
    let name = asked.resource_name.as_str();
    match asked.resource_type {
        resource::TOPIC => topic(cx, image, name),
        resource::BROKER if name.is_empty() => {
            let set = image.configs_of(&ConfigResource::ClusterDefault);
            Ok(set.map(describe_cluster_default).unwrap_or_default())
        }
        resource::BROKER => broker(cx, image, name),
        // No config of a group is served yet; Kafka answers unknown groups without an error too.
        resource::GROUP => Ok(Vec::new()),
        other => Err((
            ErrorCode::InvalidRequest,
            format!("resource type {other} is not served"),
        )),
    }
}

fn topic(cx: &RequestContext, image: &Image, name: &str) -> Result<Vec<ConfigEntry>, Refusal> {
    topic_names::check(name)
        .map_err(|reason| (ErrorCode::InvalidTopicException, reason.to_owned()))?;
    let topic = image.topic(name).ok_or_else(|| {
        (
            ErrorCode::UnknownTopicOrPartition,
            "no such topic".to_owned(),
        )
    })?;
    let factor = topic
        .partitions
        .values()
        .next()
        .map_or(1, |state| state.replicas.len());
    let overrides = topic_overrides(image, name);
    let broker_id = cx.broker().broker_id();
    Ok(config_layers::describe(
        image,
        broker_id,
        &cx.config().server,
        overrides,
        factor,
    ))
}

/// A broker describes itself only: its file is known to nobody else.
fn broker(cx: &RequestContext, image: &Image, name: &str) -> Result<Vec<ConfigEntry>, Refusal> {
    let own = cx.broker().broker_id();
    if name.parse() != Ok(own.get()) {
        let message = format!("this is broker {own}: ask broker {name:?} itself");
        return Err((ErrorCode::InvalidRequest, message));
    }
    let layers = DynamicLayers::of(image, own);
    let facts = ClusterFacts {
        registered_brokers: image.brokers.len(),
    };
    Ok(describe_broker(
        layers.broker,
        layers.cluster,
        &cx.config().server,
        facts,
    ))
}

fn rows(
    entries: Vec<ConfigEntry>,
    asked: &DescribeConfigsResource,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let keys = asked
        .configuration_keys
        .as_ref()
        .filter(|keys| !keys.is_empty());
    let wanted = entries
        .into_iter()
        .filter(|entry| keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name)));
    wanted.map(|entry| row(entry, request)).collect()
}

fn row(entry: ConfigEntry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = entry
        .synonyms
        .into_iter()
        .filter(|_| request.include_synonyms);
    let synonyms = synonyms.map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(synonym.name.into())
            .with_value(Some(synonym.value.into()))
            .with_source(source(synonym.source))
    });
    let documentation = request.include_documentation.then(|| entry.doc.into());
    DescribeConfigsResourceResult::default()
        .with_name(entry.name.into())
        .with_value(entry.value.map(Into::into))
        .with_read_only(entry.read_only)
        .with_config_source(source(entry.source))
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(kind(entry.kind))
        .with_documentation(documentation)
}

impl CountErrors for DescribeConfigsResponse {
    fn count_errors(&self) -> usize {
        count(self.results.iter().map(|result| result.error_code))
    }
}
