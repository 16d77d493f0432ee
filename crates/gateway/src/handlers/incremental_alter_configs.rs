//! IncrementalAlterConfigs: single changes of dynamic configs (KIP-339).
//!
//! Values are checked here, against the table of keys; the controller applies them to exact state.
//! Resources succeed and fail alone, the keys of one resource together.

use ottla_config::{
    BrokerScope, Kind, broker_key, check_broker_config, check_broker_config_removal,
    check_topic_config, list_base, topic_key,
};
use ottla_metadata::{AlterConfigOp, Command, ConfigAlteration, ConfigResource, Image, Outcome};
use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
};

use super::{
    CountErrors,
    configs::resource,
    controller_call::{Call, Refusal, answers, execute, named_twice, refuse},
    count,
};
use crate::{config_layers::DynamicLayers, context::RequestContext, error_code, topic_names};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(
    cx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let image = cx.image();
    let twice = named_twice(request.resources.iter().map(key));
    let checked: Vec<Result<ConfigAlteration, Refusal>> = request
        .resources
        .iter()
        .map(|resource| match twice.contains(&key(resource)) {
            true => refuse(ErrorCode::InvalidRequest, "the resource is named twice"),
            false => alteration(cx, &image, resource),
        })
        .collect();
    let alterations: Vec<ConfigAlteration> = checked.iter().flatten().cloned().collect();
    let call = Call {
        items: alterations.len(),
        deadline: cx.default_deadline(),
        validate_only: request.validate_only,
        command: Command::AlterConfigs {
            alterations,
            validate_only: request.validate_only,
        },
    };
    let altered = execute(cx, call, |outcome| match outcome {
        Outcome::AlteredConfigs(results) => Ok(results),
        other => Err(other),
    })
    .await;
    let rows = request
        .resources
        .iter()
        .zip(answers(checked, altered))
        .map(|(resource, answer)| {
            let row = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match answer {
                Ok(_) => row,
                Err((code, message)) => row
                    .with_error_code(code.code())
                    .with_error_message(Some(message.into())),
            }
        });
    IncrementalAlterConfigsResponse::default().with_responses(rows.collect())
}

fn key(resource: &AlterConfigsResource) -> (i8, &str) {
    (resource.resource_type, resource.resource_name.as_str())
}

fn alteration(
    cx: &RequestContext,
    image: &Image,
    asked: &AlterConfigsResource,
) -> Result<ConfigAlteration, Refusal> {
    let names = asked.configs.iter().map(|config| config.name.as_str());
    if !named_twice(names).is_empty() {
        return refuse(ErrorCode::InvalidRequest, "a key is named twice");
    }
    let resource = resource_of(image, asked)?;
    let ops = asked.configs.iter().map(|config| {
        let op = match &resource {
            ConfigResource::Topic(_) => topic_op(cx, image, config),
            ConfigResource::Broker(_) => broker_op(config, BrokerScope::One),
            ConfigResource::ClusterDefault
            | ConfigResource::ControllerFile
            | ConfigResource::Group(_) => broker_op(config, BrokerScope::All),
        };
        Ok((config.name.to_string(), op?))
    });
    let ops = ops.collect::<Result<_, Refusal>>()?;
    Ok(ConfigAlteration { resource, ops })
}

fn resource_of(image: &Image, asked: &AlterConfigsResource) -> Result<ConfigResource, Refusal> {
    let name = asked.resource_name.as_str();
    match asked.resource_type {
        resource::TOPIC => {
            if let Err(reason) = topic_names::check(name) {
                return refuse(ErrorCode::InvalidTopicException, reason);
            }
            match image.topic(name) {
                Some(_) => Ok(ConfigResource::Topic(name.to_owned())),
                None => refuse(ErrorCode::UnknownTopicOrPartition, "no such topic"),
            }
        }
        resource::BROKER if name.is_empty() => Ok(ConfigResource::ClusterDefault),
        resource::BROKER => match name.parse().ok().and_then(BrokerId::new) {
            Some(id) if image.brokers.contains_key(&id) => Ok(ConfigResource::Broker(id)),
            Some(_) => refuse(ErrorCode::BrokerIdNotRegistered, "no such broker"),
            None => refuse(ErrorCode::InvalidRequest, "the name of a broker is its id"),
        },
        other => refuse(
            ErrorCode::InvalidRequest,
            format!("resource type {other} is not served"),
        ),
    }
}

fn value(config: &AlterableConfig) -> Result<String, Refusal> {
    match &config.value {
        Some(value) => Ok(value.to_string()),
        None => refuse(
            ErrorCode::InvalidRequest,
            format!("{}: null value", config.name),
        ),
    }
}

fn topic_op(
    cx: &RequestContext,
    image: &Image,
    config: &AlterableConfig,
) -> Result<AlterConfigOp, Refusal> {
    let name = config.name.as_str();
    let check = |value: &str| {
        check_topic_config(name, value)
            .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))
    };
    match config.config_operation {
        SET => {
            let value = value(config)?;
            check(&value)?;
            Ok(AlterConfigOp::Set(value))
        }
        DELETE if topic_key(name).is_some() => Ok(AlterConfigOp::Delete),
        DELETE => refuse(
            ErrorCode::InvalidConfig,
            format!("{name}: unknown topic config"),
        ),
        APPEND | SUBTRACT => {
            let value = value(config)?;
            let layers = DynamicLayers::of(image, cx.broker().broker_id());
            let base = list_base(name, layers.broker, layers.cluster, &cx.config().server);
            let Some(base) = base else {
                return refuse(ErrorCode::InvalidConfig, format!("{name}: not a list"));
            };
            if config.config_operation == SUBTRACT {
                return Ok(AlterConfigOp::Subtract { base, value });
            }
            check(&value)?;
            Ok(AlterConfigOp::Append { base, value })
        }
        other => refuse(
            ErrorCode::InvalidRequest,
            format!("{name}: unknown operation {other}"),
        ),
    }
}

fn broker_op(config: &AlterableConfig, scope: BrokerScope) -> Result<AlterConfigOp, Refusal> {
    let name = config.name.as_str();
    let check = |value: &str| {
        check_broker_config(name, value, scope)
            .map_err(|error| (error_code::alter_broker(&error), error.to_string()))
    };
    match config.config_operation {
        SET => {
            let value = value(config)?;
            check(&value)?;
            Ok(AlterConfigOp::Set(value))
        }
        DELETE => {
            check_broker_config_removal(name, scope)
                .map_err(|error| (error_code::alter_broker(&error), error.to_string()))?;
            Ok(AlterConfigOp::Delete)
        }
        APPEND | SUBTRACT => {
            let value = value(config)?;
            let key = broker_key(name).filter(|key| key.kind == Kind::List);
            let Some(key) = key else {
                return refuse(ErrorCode::InvalidConfig, format!("{name}: not a list"));
            };
            let base = key.default_text().unwrap_or_default().to_owned();
            if config.config_operation == SUBTRACT {
                return Ok(AlterConfigOp::Subtract { base, value });
            }
            check(&value)?;
            Ok(AlterConfigOp::Append { base, value })
        }
        other => refuse(
            ErrorCode::InvalidRequest,
            format!("{name}: unknown operation {other}"),
        ),
    }
}

impl CountErrors for IncrementalAlterConfigsResponse {
    fn count_errors(&self) -> usize {
        count(self.responses.iter().map(|response| response.error_code))
    }
}
