//! What can be asked of hosted groups.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use ottla_types::{BrokerId, PartitionIndex};

use super::{
    CommitRequest, CommittedTopic, DeletedOffset, FetchOffsetsRequest, FetchedTopic,
    GroupDescription, GroupError, GroupListing, GroupNumbers, GroupsConfig, HeartbeatRequest,
    JoinRequest, Joined, LeaveRequest, OffsetsLog, SyncRequest, Synced, create::TopicCreation,
    owner::Owner, topics::partition_of,
};

/// Requests that may wait for the owner's attention. Their bytes are charged to their connections.
const INBOX_REQUESTS_MAX: usize = 2_048;

/// How long a request waits for a place in the inbox; the owner never waits itself.
const INBOX_WAIT: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, GroupError>>;

/// A request on its way to the owner.
#[derive(Debug)]
pub(super) enum Request {
    Join(JoinRequest, ReplyTo<Joined>),
    Sync(SyncRequest, ReplyTo<Synced>),
    Heartbeat(HeartbeatRequest, ReplyTo<()>),
    Leave(LeaveRequest, ReplyTo<Vec<Result<(), GroupError>>>),
    Commit(CommitRequest, ReplyTo<Vec<CommittedTopic>>),
    Fetch(FetchOffsetsRequest, ReplyTo<Vec<FetchedTopic>>),
    List(ReplyTo<Vec<GroupListing>>),
    Describe(String, ReplyTo<GroupDescription>),
    DeleteGroup(String, ReplyTo<()>),
    DeleteOffsets(
        String,
        Vec<(String, Vec<PartitionIndex>)>,
        ReplyTo<Vec<DeletedOffset>>,
    ),
}

/// The running task.
#[derive(Debug)]
pub struct Groups {
    handle: GroupsHandle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Groups {
    /// Starts hosting groups; must be called inside a tokio runtime.
    #[must_use]
    pub fn start(
        log: Arc<dyn OffsetsLog>,
        config: GroupsConfig,
        shutdown: CancellationToken,
    ) -> Groups {
        let (inbox, requests) = mpsc::channel(INBOX_REQUESTS_MAX);
        let stop = shutdown.child_token();
        let tasks = TaskTracker::new();
        let numbers = Arc::new(Mutex::default());
        let owner = Owner::new(log.clone(), config.clone(), requests, Arc::clone(&numbers));
        tasks.spawn(owner.run(stop.clone()));
        tasks.close();
        let handle = GroupsHandle {
            inbox,
            log,
            config: Arc::new(config),
            creation: Arc::default(),
            numbers,
        };
        Groups {
            handle,
            stop,
            tasks,
        }
    }

    /// A handle to ask with.
    #[must_use]
    pub fn handle(&self) -> GroupsHandle {
        self.handle.clone()
    }

    /// Answers everybody who waits and ends the task.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// Asks the groups hosted by this broker. Dropping a future stops the waiting, not the request.
#[derive(Clone)]
pub struct GroupsHandle {
    inbox: mpsc::Sender<Request>,
    log: Arc<dyn OffsetsLog>,
    config: Arc<GroupsConfig>,
    creation: Arc<TopicCreation>,
    numbers: Arc<Mutex<GroupNumbers>>,
}

impl std::fmt::Debug for GroupsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupsHandle").finish_non_exhaustive()
    }
}

impl GroupsHandle {
    /// Groups coordinated here, as counted some seconds ago at most.
    #[must_use]
    pub fn numbers(&self) -> GroupNumbers {
        *self.numbers.lock()
    }

    /// Which broker coordinates the group. The internal topic is created if it is missing;
    /// `CoordinatorNotAvailable` until it has leaders.
    pub async fn find_coordinator(
        &self,
        group_id: &str,
        deadline: Instant,
    ) -> Result<BrokerId, GroupError> {
        if partition_of(&self.log.image(), group_id).is_none() {
            self.creation
                .create(self.log.as_ref(), &self.config, deadline)
                .await;
        }
        let image = self.log.image();
        let leader = partition_of(&image, group_id).and_then(|(_, record)| record.leader);
        leader
            .filter(|leader| {
                image
                    .brokers
                    .get(leader)
                    .is_some_and(|broker| !broker.fenced)
            })
            .ok_or(GroupError::CoordinatorNotAvailable)
    }

    /// Joins a group: answered when the round ends and its generation is committed.
    /// `MemberIdRequired` carries the id to answer with.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, GroupError> {
        self.ask(|reply| Request::Join(request, reply)).await
    }

    /// Fetches a member's assignment: answered when the leader's assignment is committed.
    pub async fn sync(&self, request: SyncRequest) -> Result<Synced, GroupError> {
        self.ask(|reply| Request::Sync(request, reply)).await
    }

    /// Keeps a member's session alive.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Result<(), GroupError> {
        self.ask(|reply| Request::Heartbeat(request, reply)).await
    }

    /// Takes members out; one answer for each, in order.
    pub async fn leave(
        &self,
        request: LeaveRequest,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.ask(|reply| Request::Leave(request, reply)).await
    }

    /// Stores offsets: answered when they are committed. An error concerns every partition;
    /// `GroupIdNotFound` is for a generation of a group that does not exist.
    pub async fn commit_offsets(
        &self,
        request: CommitRequest,
    ) -> Result<Vec<CommittedTopic>, GroupError> {
        self.ask(|reply| Request::Commit(request, reply)).await
    }

    /// Stored offsets of several groups, answered in order.
    pub async fn fetch_offsets(
        &self,
        requests: Vec<FetchOffsetsRequest>,
    ) -> Vec<Result<Vec<FetchedTopic>, GroupError>> {
        let ask = |request| self.ask(|reply| Request::Fetch(request, reply));
        join_all(requests.into_iter().map(ask)).await
    }

    /// The groups that this broker coordinates.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        self.ask(Request::List).await
    }

    /// One group with its members; `GroupIdNotFound` if there is none.
    pub async fn describe(&self, group_id: &str) -> Result<GroupDescription, GroupError> {
        self.ask(|reply| Request::Describe(group_id.to_owned(), reply))
            .await
    }

    /// Removes groups without members: answered when that is committed, in order.
    pub async fn delete_groups(
        &self,
        group_ids: Vec<String>,
    ) -> Vec<(String, Result<(), GroupError>)> {
        let delete = |group_id: String| async {
            let result = self
                .ask(|reply| Request::DeleteGroup(group_id.clone(), reply))
                .await;
            (group_id, result)
        };
        join_all(group_ids.into_iter().map(delete)).await
    }

    /// Removes single offsets: answered when that is committed.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        topics: Vec<(String, Vec<PartitionIndex>)>,
    ) -> Result<Vec<DeletedOffset>, GroupError> {
        self.ask(|reply| Request::DeleteOffsets(group_id.to_owned(), topics, reply))
            .await
    }

    async fn ask<T>(&self, request: impl FnOnce(ReplyTo<T>) -> Request) -> Result<T, GroupError> {
        let (reply, answer) = oneshot::channel();
        match timeout(INBOX_WAIT, self.inbox.send(request(reply))).await {
            Ok(Ok(())) => {}
            // Overloaded or stopped: nothing was asked, the client may come again.
            Ok(Err(_)) | Err(_) => return Err(GroupError::CoordinatorNotAvailable),
        }
        // The owner answers everybody before it ends; a lost answer means that it died.
        answer
            .await
            .unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }
}
