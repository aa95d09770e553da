from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Section(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAINED: _ClassVar[Section]
    STATE: _ClassVar[Section]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT: _ClassVar[TaskKind]
    TRAIN: _ClassVar[TaskKind]
    VALIDATE: _ClassVar[TaskKind]
    FINISH: _ClassVar[TaskKind]
    END: _ClassVar[TaskKind]

class BarrierKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EPOCH_BEGIN: _ClassVar[BarrierKind]
    EPOCH_METRICS: _ClassVar[BarrierKind]
    EPOCH_END: _ClassVar[BarrierKind]
    FIT_END: _ClassVar[BarrierKind]

class RequestKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PUSH_PULL: _ClassVar[RequestKind]
    PULL: _ClassVar[RequestKind]
    INIT: _ClassVar[RequestKind]
    ASSIGN: _ClassVar[RequestKind]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPLIED: _ClassVar[Outcome]
    BUFFERED: _ClassVar[Outcome]
    DROPPED: _ClassVar[Outcome]
TRAINED: Section
STATE: Section
WAIT: TaskKind
TRAIN: TaskKind
VALIDATE: TaskKind
FINISH: TaskKind
END: TaskKind
EPOCH_BEGIN: BarrierKind
EPOCH_METRICS: BarrierKind
EPOCH_END: BarrierKind
FIT_END: BarrierKind
PUSH_PULL: RequestKind
PULL: RequestKind
INIT: RequestKind
ASSIGN: RequestKind
APPLIED: Outcome
BUFFERED: Outcome
DROPPED: Outcome

class Tensor(_message.Message):
    __slots__ = ("name", "shape", "section", "optimizer", "no_decay", "overwrite", "constraint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    NO_DECAY_FIELD_NUMBER: _ClassVar[int]
    OVERWRITE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    section: Section
    optimizer: int
    no_decay: bool
    overwrite: bool
    constraint: Constraint
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., section: _Optional[_Union[Section, str]] = ..., optimizer: _Optional[int] = ..., no_decay: _Optional[bool] = ..., overwrite: _Optional[bool] = ..., constraint: _Optional[_Union[Constraint, _Mapping]] = ...) -> None: ...

class Constraint(_message.Message):
    __slots__ = ("name", "axes", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    axes: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., axes: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class JobDescription(_message.Message):
    __slots__ = ("protocol", "job", "model", "dataset", "batch_size", "epochs", "seed", "validation_split", "codec", "transport", "mode", "heartbeat_s", "session_s", "nonfinite_limit", "clip_norm", "workers", "shards", "learning_rate", "push_every", "fetch_every", "overlap", "phase", "chunk_bytes", "script", "reconnect_s", "layout", "lease_batches", "warm_start", "spread_validation")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SPLIT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_S_FIELD_NUMBER: _ClassVar[int]
    NONFINITE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    PUSH_EVERY_FIELD_NUMBER: _ClassVar[int]
    FETCH_EVERY_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCRIPT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_S_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    LEASE_BATCHES_FIELD_NUMBER: _ClassVar[int]
    WARM_START_FIELD_NUMBER: _ClassVar[int]
    SPREAD_VALIDATION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    job: str
    model: str
    dataset: str
    batch_size: int
    epochs: int
    seed: int
    validation_split: float
    codec: str
    transport: str
    mode: str
    heartbeat_s: float
    session_s: float
    nonfinite_limit: int
    clip_norm: float
    workers: int
    shards: int
    learning_rate: float
    push_every: int
    fetch_every: int
    overlap: bool
    phase: str
    chunk_bytes: int
    script: bool
    reconnect_s: float
    layout: Layout
    lease_batches: int
    warm_start: int
    spread_validation: bool
    def __init__(self, protocol: _Optional[int] = ..., job: _Optional[str] = ..., model: _Optional[str] = ..., dataset: _Optional[str] = ..., batch_size: _Optional[int] = ..., epochs: _Optional[int] = ..., seed: _Optional[int] = ..., validation_split: _Optional[float] = ..., codec: _Optional[str] = ..., transport: _Optional[str] = ..., mode: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., session_s: _Optional[float] = ..., nonfinite_limit: _Optional[int] = ..., clip_norm: _Optional[float] = ..., workers: _Optional[int] = ..., shards: _Optional[int] = ..., learning_rate: _Optional[float] = ..., push_every: _Optional[int] = ..., fetch_every: _Optional[int] = ..., overlap: _Optional[bool] = ..., phase: _Optional[str] = ..., chunk_bytes: _Optional[int] = ..., script: _Optional[bool] = ..., reconnect_s: _Optional[float] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., lease_batches: _Optional[int] = ..., warm_start: _Optional[int] = ..., spread_validation: _Optional[bool] = ...) -> None: ...

class DatasetInfo(_message.Message):
    __slots__ = ("name", "checksum", "train_samples", "validation_samples", "test_samples", "lease_samples", "batch_samples", "epoch_batches", "fingerprints", "numeric_targets")
    class FingerprintsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LEASE_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_BATCHES_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINTS_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_TARGETS_FIELD_NUMBER: _ClassVar[int]
    name: str
    checksum: str
    train_samples: int
    validation_samples: int
    test_samples: int
    lease_samples: int
    batch_samples: int
    epoch_batches: int
    fingerprints: _containers.ScalarMap[str, str]
    numeric_targets: bool
    def __init__(self, name: _Optional[str] = ..., checksum: _Optional[str] = ..., train_samples: _Optional[int] = ..., validation_samples: _Optional[int] = ..., test_samples: _Optional[int] = ..., lease_samples: _Optional[int] = ..., batch_samples: _Optional[int] = ..., epoch_batches: _Optional[int] = ..., fingerprints: _Optional[_Mapping[str, str]] = ..., numeric_targets: _Optional[bool] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("protocol", "job", "worker", "layout", "data", "pid", "host", "environment", "rejoin", "evaluator", "fit_call", "optimizers", "independent", "fit", "in_fit", "has_trained")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REJOIN_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    FIT_CALL_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENT_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    IN_FIT_FIELD_NUMBER: _ClassVar[int]
    HAS_TRAINED_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    job: str
    worker: int
    layout: Layout
    data: DatasetInfo
    pid: int
    host: str
    environment: _containers.ScalarMap[str, str]
    rejoin: bool
    evaluator: bool
    fit_call: int
    optimizers: _containers.RepeatedCompositeFieldContainer[OptimizerSpec]
    independent: bool
    fit: FitDescription
    in_fit: bool
    has_trained: bool
    def __init__(self, protocol: _Optional[int] = ..., job: _Optional[str] = ..., worker: _Optional[int] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., data: _Optional[_Union[DatasetInfo, _Mapping]] = ..., pid: _Optional[int] = ..., host: _Optional[str] = ..., environment: _Optional[_Mapping[str, str]] = ..., rejoin: _Optional[bool] = ..., evaluator: _Optional[bool] = ..., fit_call: _Optional[int] = ..., optimizers: _Optional[_Iterable[_Union[OptimizerSpec, _Mapping]]] = ..., independent: _Optional[bool] = ..., fit: _Optional[_Union[FitDescription, _Mapping]] = ..., in_fit: _Optional[bool] = ..., has_trained: _Optional[bool] = ...) -> None: ...

class FitDescription(_message.Message):
    __slots__ = ("model", "initial_epoch", "epochs", "batch_size", "steps_per_epoch")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INITIAL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    model: str
    initial_epoch: int
    epochs: int
    batch_size: int
    steps_per_epoch: int
    def __init__(self, model: _Optional[str] = ..., initial_epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., steps_per_epoch: _Optional[int] = ...) -> None: ...

class OptimizerSpec(_message.Message):
    __slots__ = ("name", "hyperparameters", "learning_rates", "updates", "gradients", "ema_momentum", "ema_overwrite_frequency")
    class HyperparametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATES_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    EMA_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    EMA_OVERWRITE_FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    name: str
    hyperparameters: _containers.ScalarMap[str, float]
    learning_rates: LearningRates
    updates: int
    gradients: int
    ema_momentum: float
    ema_overwrite_frequency: int
    def __init__(self, name: _Optional[str] = ..., hyperparameters: _Optional[_Mapping[str, float]] = ..., learning_rates: _Optional[_Union[LearningRates, _Mapping]] = ..., updates: _Optional[int] = ..., gradients: _Optional[int] = ..., ema_momentum: _Optional[float] = ..., ema_overwrite_frequency: _Optional[int] = ...) -> None: ...

class LearningRates(_message.Message):
    __slots__ = ("updates", "rates")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedScalarFieldContainer[int]
    rates: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, updates: _Optional[_Iterable[int]] = ..., rates: _Optional[_Iterable[float]] = ...) -> None: ...

class ShardAddress(_message.Message):
    __slots__ = ("shard", "address", "generation", "doorbell", "tcp")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DOORBELL_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    shard: int
    address: str
    generation: int
    doorbell: str
    tcp: str
    def __init__(self, shard: _Optional[int] = ..., address: _Optional[str] = ..., generation: _Optional[int] = ..., doorbell: _Optional[str] = ..., tcp: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("worker", "incarnation", "session", "shards", "fit_completed", "decisions", "epoch_begun", "failure", "initial_epoch", "last", "epoch_ending")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    FIT_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_BEGUN_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    EPOCH_ENDING_FIELD_NUMBER: _ClassVar[int]
    worker: int
    incarnation: int
    session: int
    shards: _containers.RepeatedCompositeFieldContainer[ShardAddress]
    fit_completed: bool
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    epoch_begun: bool
    failure: FitFailure
    initial_epoch: int
    last: Decision
    epoch_ending: bool
    def __init__(self, worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., session: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ShardAddress, _Mapping]]] = ..., fit_completed: _Optional[bool] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., epoch_begun: _Optional[bool] = ..., failure: _Optional[_Union[FitFailure, _Mapping]] = ..., initial_epoch: _Optional[int] = ..., last: _Optional[_Union[Decision, _Mapping]] = ..., epoch_ending: _Optional[bool] = ...) -> None: ...

class ReadyRequest(_message.Message):
    __slots__ = ("session", "initialised", "compiled", "environment")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    INITIALISED_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    session: int
    initialised: bool
    compiled: bool
    environment: _containers.ScalarMap[str, str]
    def __init__(self, session: _Optional[int] = ..., initialised: _Optional[bool] = ..., compiled: _Optional[bool] = ..., environment: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReadyReply(_message.Message):
    __slots__ = ("initialise", "start", "end")
    INITIALISE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    initialise: bool
    start: bool
    end: bool
    def __init__(self, initialise: _Optional[bool] = ..., start: _Optional[bool] = ..., end: _Optional[bool] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: int
    def __init__(self, session: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("drain", "remaining_s", "final_phase")
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    FINAL_PHASE_FIELD_NUMBER: _ClassVar[int]
    drain: bool
    remaining_s: float
    final_phase: str
    def __init__(self, drain: _Optional[bool] = ..., remaining_s: _Optional[float] = ..., final_phase: _Optional[str] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("session", "wait_s", "epoch", "ahead", "used", "batches_to_push", "batches_per_push", "samples")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    BATCHES_TO_PUSH_FIELD_NUMBER: _ClassVar[int]
    BATCHES_PER_PUSH_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    session: int
    wait_s: float
    epoch: int
    ahead: bool
    used: _containers.RepeatedCompositeFieldContainer[LeaseUse]
    batches_to_push: int
    batches_per_push: int
    samples: int
    def __init__(self, session: _Optional[int] = ..., wait_s: _Optional[float] = ..., epoch: _Optional[int] = ..., ahead: _Optional[bool] = ..., used: _Optional[_Iterable[_Union[LeaseUse, _Mapping]]] = ..., batches_to_push: _Optional[int] = ..., batches_per_push: _Optional[int] = ..., samples: _Optional[int] = ...) -> None: ...

class LeaseUse(_message.Message):
    __slots__ = ("lease", "stop", "returned")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    lease: int
    stop: int
    returned: bool
    def __init__(self, lease: _Optional[int] = ..., stop: _Optional[int] = ..., returned: _Optional[bool] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("kind", "lease", "epoch", "start", "stop", "pin", "reason", "remaining_s", "parts")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    kind: TaskKind
    lease: int
    epoch: int
    start: int
    stop: int
    pin: int
    reason: str
    remaining_s: float
    parts: int
    def __init__(self, kind: _Optional[_Union[TaskKind, str]] = ..., lease: _Optional[int] = ..., epoch: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., pin: _Optional[int] = ..., reason: _Optional[str] = ..., remaining_s: _Optional[float] = ..., parts: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("samples", "loss", "accuracy")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    samples: int
    loss: float
    accuracy: float
    def __init__(self, samples: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("session", "epoch", "kind", "validation", "test")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    session: int
    epoch: int
    kind: TaskKind
    validation: Evaluation
    test: Evaluation
    def __init__(self, session: _Optional[int] = ..., epoch: _Optional[int] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., validation: _Optional[_Union[Evaluation, _Mapping]] = ..., test: _Optional[_Union[Evaluation, _Mapping]] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadChunk(_message.Message):
    __slots__ = ("session", "data", "size_bytes", "sha256")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    session: int
    data: bytes
    size_bytes: int
    sha256: bytes
    def __init__(self, session: _Optional[int] = ..., data: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class UploadReply(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session", "failed", "reason", "step_s", "exchange_s", "error_type")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    session: int
    failed: bool
    reason: str
    step_s: float
    exchange_s: float
    error_type: str
    def __init__(self, session: _Optional[int] = ..., failed: _Optional[bool] = ..., reason: _Optional[str] = ..., step_s: _Optional[float] = ..., exchange_s: _Optional[float] = ..., error_type: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BarrierRequest(_message.Message):
    __slots__ = ("session", "epoch", "values", "stop", "decision", "kind", "names", "validated", "validation", "until_complete")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALIDATED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    session: int
    epoch: int
    values: _containers.RepeatedScalarFieldContainer[float]
    stop: bool
    decision: Decision
    kind: BarrierKind
    names: _containers.RepeatedScalarFieldContainer[str]
    validated: bool
    validation: _containers.RepeatedScalarFieldContainer[float]
    until_complete: bool
    def __init__(self, session: _Optional[int] = ..., epoch: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., stop: _Optional[bool] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., kind: _Optional[_Union[BarrierKind, str]] = ..., names: _Optional[_Iterable[str]] = ..., validated: _Optional[bool] = ..., validation: _Optional[_Iterable[float]] = ..., until_complete: _Optional[bool] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("stop", "logs", "learning_rates", "callback_state", "other_logs", "weights_assigned", "leases", "variables")
    class LogsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STOP_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATES_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_STATE_FIELD_NUMBER: _ClassVar[int]
    OTHER_LOGS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    stop: bool
    logs: _containers.ScalarMap[str, float]
    learning_rates: _containers.RepeatedScalarFieldContainer[float]
    callback_state: str
    other_logs: str
    weights_assigned: bool
    leases: LeasePlan
    variables: _containers.RepeatedCompositeFieldContainer[VariableValue]
    def __init__(self, stop: _Optional[bool] = ..., logs: _Optional[_Mapping[str, float]] = ..., learning_rates: _Optional[_Iterable[float]] = ..., callback_state: _Optional[str] = ..., other_logs: _Optional[str] = ..., weights_assigned: _Optional[bool] = ..., leases: _Optional[_Union[LeasePlan, _Mapping]] = ..., variables: _Optional[_Iterable[_Union[VariableValue, _Mapping]]] = ...) -> None: ...

class LeasePlan(_message.Message):
    __slots__ = ("samples", "lease_samples")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LEASE_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: int
    lease_samples: int
    def __init__(self, samples: _Optional[int] = ..., lease_samples: _Optional[int] = ...) -> None: ...

class VariableValue(_message.Message):
    __slots__ = ("index", "content")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    index: int
    content: bytes
    def __init__(self, index: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class FitFailure(_message.Message):
    __slots__ = ("worker", "error_type", "text")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    worker: int
    error_type: str
    text: str
    def __init__(self, worker: _Optional[int] = ..., error_type: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class BarrierReply(_message.Message):
    __slots__ = ("complete", "sums", "pin", "decision", "failure", "names", "validated", "validation")
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    VALIDATED_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    sums: _containers.RepeatedScalarFieldContainer[float]
    pin: int
    decision: Decision
    failure: FitFailure
    names: _containers.RepeatedScalarFieldContainer[str]
    validated: _containers.RepeatedScalarFieldContainer[int]
    validation: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, complete: _Optional[bool] = ..., sums: _Optional[_Iterable[float]] = ..., pin: _Optional[int] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., failure: _Optional[_Union[FitFailure, _Mapping]] = ..., names: _Optional[_Iterable[str]] = ..., validated: _Optional[_Iterable[int]] = ..., validation: _Optional[_Iterable[float]] = ...) -> None: ...

class SetLearningRatesRequest(_message.Message):
    __slots__ = ("session", "rates")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    session: int
    rates: _containers.RepeatedCompositeFieldContainer[LearningRates]
    def __init__(self, session: _Optional[int] = ..., rates: _Optional[_Iterable[_Union[LearningRates, _Mapping]]] = ...) -> None: ...

class SetLearningRatesReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("every_s", "records", "launcher")
    EVERY_S_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LAUNCHER_FIELD_NUMBER: _ClassVar[int]
    every_s: float
    records: bool
    launcher: bool
    def __init__(self, every_s: _Optional[float] = ..., records: _Optional[bool] = ..., launcher: _Optional[bool] = ...) -> None: ...

class WorkerProgress(_message.Message):
    __slots__ = ("worker", "incarnation", "state", "updates", "samples", "samples_per_s", "loss", "staleness_mean", "staleness_last", "dropped", "host", "pid")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MEAN_FIELD_NUMBER: _ClassVar[int]
    STALENESS_LAST_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    worker: int
    incarnation: int
    state: str
    updates: int
    samples: int
    samples_per_s: float
    loss: float
    staleness_mean: float
    staleness_last: int
    dropped: int
    host: str
    pid: int
    def __init__(self, worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., state: _Optional[str] = ..., updates: _Optional[int] = ..., samples: _Optional[int] = ..., samples_per_s: _Optional[float] = ..., loss: _Optional[float] = ..., staleness_mean: _Optional[float] = ..., staleness_last: _Optional[int] = ..., dropped: _Optional[int] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("job", "model", "dataset", "mode", "phase", "epoch", "epochs", "samples", "total_samples", "samples_per_s", "loss", "accuracy", "val_loss", "val_accuracy", "test_accuracy", "staleness_mean", "version", "dropped", "duplicates", "elapsed_s", "eta_s", "shards", "shards_joined", "workers", "notes", "run", "epoch_samples", "samples_per_epoch", "optimizer", "batch_size", "records", "skipped_bytes", "paused", "workers_wanted", "staleness_policy", "learning_rate", "bytes_pushed", "bytes_pulled", "metrics", "sentences", "events")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VAL_LOSS_FIELD_NUMBER: _ClassVar[int]
    VAL_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    TEST_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MEAN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_JOINED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_WANTED_FIELD_NUMBER: _ClassVar[int]
    STALENESS_POLICY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BYTES_PUSHED_FIELD_NUMBER: _ClassVar[int]
    BYTES_PULLED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    job: str
    model: str
    dataset: str
    mode: str
    phase: str
    epoch: int
    epochs: int
    samples: int
    total_samples: int
    samples_per_s: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    test_accuracy: float
    staleness_mean: float
    version: int
    dropped: int
    duplicates: int
    elapsed_s: float
    eta_s: float
    shards: int
    shards_joined: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerProgress]
    notes: _containers.RepeatedScalarFieldContainer[str]
    run: str
    epoch_samples: int
    samples_per_epoch: int
    optimizer: str
    batch_size: int
    records: _containers.RepeatedCompositeFieldContainer[TraceRecords]
    skipped_bytes: int
    paused: bool
    workers_wanted: int
    staleness_policy: str
    learning_rate: float
    bytes_pushed: int
    bytes_pulled: int
    metrics: _containers.ScalarMap[str, float]
    sentences: _containers.RepeatedCompositeFieldContainer[Sentence]
    events: _containers.RepeatedCompositeFieldContainer[JobEvent]
    def __init__(self, job: _Optional[str] = ..., model: _Optional[str] = ..., dataset: _Optional[str] = ..., mode: _Optional[str] = ..., phase: _Optional[str] = ..., epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., samples: _Optional[int] = ..., total_samples: _Optional[int] = ..., samples_per_s: _Optional[float] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., val_loss: _Optional[float] = ..., val_accuracy: _Optional[float] = ..., test_accuracy: _Optional[float] = ..., staleness_mean: _Optional[float] = ..., version: _Optional[int] = ..., dropped: _Optional[int] = ..., duplicates: _Optional[int] = ..., elapsed_s: _Optional[float] = ..., eta_s: _Optional[float] = ..., shards: _Optional[int] = ..., shards_joined: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerProgress, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ..., epoch_samples: _Optional[int] = ..., samples_per_epoch: _Optional[int] = ..., optimizer: _Optional[str] = ..., batch_size: _Optional[int] = ..., records: _Optional[_Iterable[_Union[TraceRecords, _Mapping]]] = ..., skipped_bytes: _Optional[int] = ..., paused: _Optional[bool] = ..., workers_wanted: _Optional[int] = ..., staleness_policy: _Optional[str] = ..., learning_rate: _Optional[float] = ..., bytes_pushed: _Optional[int] = ..., bytes_pulled: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., sentences: _Optional[_Iterable[_Union[Sentence, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[JobEvent, _Mapping]]] = ...) -> None: ...

class Sentence(_message.Message):
    __slots__ = ("text", "code", "values", "number")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Sentence
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Sentence, _Mapping]] = ...) -> None: ...
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    code: str
    values: _containers.MessageMap[str, Sentence]
    number: int
    def __init__(self, text: _Optional[str] = ..., code: _Optional[str] = ..., values: _Optional[_Mapping[str, Sentence]] = ..., number: _Optional[int] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("kind", "elapsed_s", "number", "version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    elapsed_s: float
    number: int
    version: int
    def __init__(self, kind: _Optional[str] = ..., elapsed_s: _Optional[float] = ..., number: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class TraceRecords(_message.Message):
    __slots__ = ("shard", "records")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    shard: int
    records: bytes
    def __init__(self, shard: _Optional[int] = ..., records: _Optional[bytes] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("now", "reason", "complete")
    NOW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    now: bool
    reason: str
    complete: bool
    def __init__(self, now: _Optional[bool] = ..., reason: _Optional[str] = ..., complete: _Optional[bool] = ...) -> None: ...

class StopReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChangeRequest(_message.Message):
    __slots__ = ("mode", "staleness_policy", "learning_rate")
    MODE_FIELD_NUMBER: _ClassVar[int]
    STALENESS_POLICY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    staleness_policy: str
    learning_rate: float
    def __init__(self, mode: _Optional[str] = ..., staleness_policy: _Optional[str] = ..., learning_rate: _Optional[float] = ...) -> None: ...

class ChangeReply(_message.Message):
    __slots__ = ("number", "version", "text", "sentence")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    number: int
    version: int
    text: str
    sentence: Sentence
    def __init__(self, number: _Optional[int] = ..., version: _Optional[int] = ..., text: _Optional[str] = ..., sentence: _Optional[_Union[Sentence, _Mapping]] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointReply(_message.Message):
    __slots__ = ("number", "version")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    number: int
    version: int
    def __init__(self, number: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class AddWorkerRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: str
    def __init__(self, request: _Optional[str] = ...) -> None: ...

class AddWorkerReply(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: int
    def __init__(self, workers: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("worker", "incarnation", "session", "resting")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RESTING_FIELD_NUMBER: _ClassVar[int]
    worker: int
    incarnation: int
    session: int
    resting: bool
    def __init__(self, worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., session: _Optional[int] = ..., resting: _Optional[bool] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("number", "members")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    number: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, number: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class ShardEvent(_message.Message):
    __slots__ = ("joined", "view_seen", "initialised", "pinned", "counters", "trace", "stopped", "held", "part", "departed", "generation", "initialisation", "call_log")
    JOINED_FIELD_NUMBER: _ClassVar[int]
    VIEW_SEEN_FIELD_NUMBER: _ClassVar[int]
    INITIALISED_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    DEPARTED_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    INITIALISATION_FIELD_NUMBER: _ClassVar[int]
    CALL_LOG_FIELD_NUMBER: _ClassVar[int]
    joined: ShardAddress
    view_seen: int
    initialised: bool
    pinned: int
    counters: ShardCounters
    trace: bytes
    stopped: bool
    held: HeldPushes
    part: SnapshotPart
    departed: DepartedWorker
    generation: int
    initialisation: int
    call_log: bytes
    def __init__(self, joined: _Optional[_Union[ShardAddress, _Mapping]] = ..., view_seen: _Optional[int] = ..., initialised: _Optional[bool] = ..., pinned: _Optional[int] = ..., counters: _Optional[_Union[ShardCounters, _Mapping]] = ..., trace: _Optional[bytes] = ..., stopped: _Optional[bool] = ..., held: _Optional[_Union[HeldPushes, _Mapping]] = ..., part: _Optional[_Union[SnapshotPart, _Mapping]] = ..., departed: _Optional[_Union[DepartedWorker, _Mapping]] = ..., generation: _Optional[int] = ..., initialisation: _Optional[int] = ..., call_log: _Optional[bytes] = ...) -> None: ...

class HeldPushes(_message.Message):
    __slots__ = ("cut", "reached")
    CUT_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    cut: int
    reached: _containers.RepeatedCompositeFieldContainer[PushPosition]
    def __init__(self, cut: _Optional[int] = ..., reached: _Optional[_Iterable[_Union[PushPosition, _Mapping]]] = ...) -> None: ...

class PushPosition(_message.Message):
    __slots__ = ("worker", "incarnation", "seq")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    worker: int
    incarnation: int
    seq: int
    def __init__(self, worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class Cut(_message.Message):
    __slots__ = ("number", "reached", "abandon", "change")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    ABANDON_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    reached: _containers.RepeatedCompositeFieldContainer[PushPosition]
    abandon: bool
    change: SettingsChange
    def __init__(self, number: _Optional[int] = ..., reached: _Optional[_Iterable[_Union[PushPosition, _Mapping]]] = ..., abandon: _Optional[bool] = ..., change: _Optional[_Union[SettingsChange, _Mapping]] = ...) -> None: ...

class SettingsChange(_message.Message):
    __slots__ = ("number", "settings")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    number: int
    settings: str
    def __init__(self, number: _Optional[int] = ..., settings: _Optional[str] = ...) -> None: ...

class DepartedWorker(_message.Message):
    __slots__ = ("worker", "incarnation", "seq", "lease", "stop")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    worker: int
    incarnation: int
    seq: int
    lease: int
    stop: int
    def __init__(self, worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., seq: _Optional[int] = ..., lease: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class SnapshotPart(_message.Message):
    __slots__ = ("number", "info", "vector", "offset", "data", "last")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    number: int
    info: SnapshotInfo
    vector: str
    offset: int
    data: bytes
    last: bool
    def __init__(self, number: _Optional[int] = ..., info: _Optional[_Union[SnapshotInfo, _Mapping]] = ..., vector: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ...) -> None: ...

class SnapshotInfo(_message.Message):
    __slots__ = ("version", "updates", "time_s", "records", "pending", "initialisation", "gradients")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    INITIALISATION_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    updates: _containers.RepeatedScalarFieldContainer[int]
    time_s: float
    records: int
    pending: _containers.RepeatedCompositeFieldContainer[SampleRange]
    initialisation: int
    gradients: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, version: _Optional[int] = ..., updates: _Optional[_Iterable[int]] = ..., time_s: _Optional[float] = ..., records: _Optional[int] = ..., pending: _Optional[_Iterable[_Union[SampleRange, _Mapping]]] = ..., initialisation: _Optional[int] = ..., gradients: _Optional[_Iterable[int]] = ...) -> None: ...

class FitState(_message.Message):
    __slots__ = ("fit_call", "independent", "layout", "data", "optimizers", "fit", "decisions", "passed", "epoch", "kind", "complete", "sums", "over", "last", "stop", "failure", "history", "planned", "epochs_done", "samples_used", "workers", "earlier", "revision", "leases", "unused", "position_epoch", "position", "names", "batches_used")
    class EarlierEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: RegisterReply
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[RegisterReply, _Mapping]] = ...) -> None: ...
    FIT_CALL_FIELD_NUMBER: _ClassVar[int]
    INDEPENDENT_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_DONE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_USED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FIELD_NUMBER: _ClassVar[int]
    POSITION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_USED_FIELD_NUMBER: _ClassVar[int]
    fit_call: int
    independent: bool
    layout: Layout
    data: DatasetInfo
    optimizers: _containers.RepeatedCompositeFieldContainer[OptimizerSpec]
    fit: FitDescription
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    passed: _containers.RepeatedCompositeFieldContainer[PassedBarrier]
    epoch: int
    kind: BarrierKind
    complete: bool
    sums: _containers.RepeatedScalarFieldContainer[float]
    over: bool
    last: Decision
    stop: bool
    failure: FitFailure
    history: _containers.RepeatedCompositeFieldContainer[EpochLogs]
    planned: int
    epochs_done: int
    samples_used: int
    workers: _containers.RepeatedScalarFieldContainer[int]
    earlier: _containers.MessageMap[int, RegisterReply]
    revision: int
    leases: LeasePlan
    unused: _containers.RepeatedCompositeFieldContainer[SampleRange]
    position_epoch: int
    position: int
    names: _containers.RepeatedScalarFieldContainer[str]
    batches_used: int
    def __init__(self, fit_call: _Optional[int] = ..., independent: _Optional[bool] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., data: _Optional[_Union[DatasetInfo, _Mapping]] = ..., optimizers: _Optional[_Iterable[_Union[OptimizerSpec, _Mapping]]] = ..., fit: _Optional[_Union[FitDescription, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., passed: _Optional[_Iterable[_Union[PassedBarrier, _Mapping]]] = ..., epoch: _Optional[int] = ..., kind: _Optional[_Union[BarrierKind, str]] = ..., complete: _Optional[bool] = ..., sums: _Optional[_Iterable[float]] = ..., over: _Optional[bool] = ..., last: _Optional[_Union[Decision, _Mapping]] = ..., stop: _Optional[bool] = ..., failure: _Optional[_Union[FitFailure, _Mapping]] = ..., history: _Optional[_Iterable[_Union[EpochLogs, _Mapping]]] = ..., planned: _Optional[int] = ..., epochs_done: _Optional[int] = ..., samples_used: _Optional[int] = ..., workers: _Optional[_Iterable[int]] = ..., earlier: _Optional[_Mapping[int, RegisterReply]] = ..., revision: _Optional[int] = ..., leases: _Optional[_Union[LeasePlan, _Mapping]] = ..., unused: _Optional[_Iterable[_Union[SampleRange, _Mapping]]] = ..., position_epoch: _Optional[int] = ..., position: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ..., batches_used: _Optional[int] = ...) -> None: ...

class PassedBarrier(_message.Message):
    __slots__ = ("epoch", "kind", "decision")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    kind: BarrierKind
    decision: Decision
    def __init__(self, epoch: _Optional[int] = ..., kind: _Optional[_Union[BarrierKind, str]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class EpochLogs(_message.Message):
    __slots__ = ("logs",)
    class LogsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LOGS_FIELD_NUMBER: _ClassVar[int]
    logs: _containers.ScalarMap[str, float]
    def __init__(self, logs: _Optional[_Mapping[str, float]] = ...) -> None: ...

class SampleRange(_message.Message):
    __slots__ = ("epoch", "start", "stop")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    start: int
    stop: int
    def __init__(self, epoch: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ...) -> None: ...

class ShardCounters(_message.Message):
    __slots__ = ("version", "dropped", "duplicates", "bytes_pushed", "bytes_pulled", "uncorrected")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    BYTES_PUSHED_FIELD_NUMBER: _ClassVar[int]
    BYTES_PULLED_FIELD_NUMBER: _ClassVar[int]
    UNCORRECTED_FIELD_NUMBER: _ClassVar[int]
    version: int
    dropped: int
    duplicates: int
    bytes_pushed: int
    bytes_pulled: int
    uncorrected: int
    def __init__(self, version: _Optional[int] = ..., dropped: _Optional[int] = ..., duplicates: _Optional[int] = ..., bytes_pushed: _Optional[int] = ..., bytes_pulled: _Optional[int] = ..., uncorrected: _Optional[int] = ...) -> None: ...

class ShardCommand(_message.Message):
    __slots__ = ("job", "settings", "layout", "view", "pin", "unpin", "stop", "generation", "hold", "cut", "restore", "flush", "learning_rates", "optimizers", "initialisation", "next_call", "restored_call")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    UNPIN_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZERS_FIELD_NUMBER: _ClassVar[int]
    INITIALISATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_CALL_FIELD_NUMBER: _ClassVar[int]
    RESTORED_CALL_FIELD_NUMBER: _ClassVar[int]
    job: JobDescription
    settings: str
    layout: Layout
    view: View
    pin: int
    unpin: int
    stop: bool
    generation: int
    hold: int
    cut: Cut
    restore: SnapshotPart
    flush: bool
    learning_rates: _containers.RepeatedCompositeFieldContainer[LearningRates]
    optimizers: _containers.RepeatedCompositeFieldContainer[OptimizerSpec]
    initialisation: int
    next_call: bool
    restored_call: bool
    def __init__(self, job: _Optional[_Union[JobDescription, _Mapping]] = ..., settings: _Optional[str] = ..., layout: _Optional[_Union[Layout, _Mapping]] = ..., view: _Optional[_Union[View, _Mapping]] = ..., pin: _Optional[int] = ..., unpin: _Optional[int] = ..., stop: _Optional[bool] = ..., generation: _Optional[int] = ..., hold: _Optional[int] = ..., cut: _Optional[_Union[Cut, _Mapping]] = ..., restore: _Optional[_Union[SnapshotPart, _Mapping]] = ..., flush: _Optional[bool] = ..., learning_rates: _Optional[_Iterable[_Union[LearningRates, _Mapping]]] = ..., optimizers: _Optional[_Iterable[_Union[OptimizerSpec, _Mapping]]] = ..., initialisation: _Optional[int] = ..., next_call: _Optional[bool] = ..., restored_call: _Optional[bool] = ...) -> None: ...

class RawFrame(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("protocol", "session", "region_bytes", "token")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REGION_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    session: int
    region_bytes: int
    token: str
    def __init__(self, protocol: _Optional[int] = ..., session: _Optional[int] = ..., region_bytes: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("kind", "worker", "incarnation", "seq", "base_version", "generation", "codec", "payload_bytes", "norm", "nonfinite", "samples", "loss", "correct", "lease", "epoch", "start", "stop", "steps", "pin", "no_pull", "have_version", "retain_previous", "slot", "tensors", "partial", "compute_s", "repeats")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    NONFINITE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    NO_PULL_FIELD_NUMBER: _ClassVar[int]
    HAVE_VERSION_FIELD_NUMBER: _ClassVar[int]
    RETAIN_PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    kind: RequestKind
    worker: int
    incarnation: int
    seq: int
    base_version: int
    generation: int
    codec: str
    payload_bytes: int
    norm: float
    nonfinite: bool
    samples: int
    loss: float
    correct: int
    lease: int
    epoch: int
    start: int
    stop: int
    steps: int
    pin: int
    no_pull: bool
    have_version: int
    retain_previous: bool
    slot: str
    tensors: bytes
    partial: bool
    compute_s: float
    repeats: bool
    def __init__(self, kind: _Optional[_Union[RequestKind, str]] = ..., worker: _Optional[int] = ..., incarnation: _Optional[int] = ..., seq: _Optional[int] = ..., base_version: _Optional[int] = ..., generation: _Optional[int] = ..., codec: _Optional[str] = ..., payload_bytes: _Optional[int] = ..., norm: _Optional[float] = ..., nonfinite: _Optional[bool] = ..., samples: _Optional[int] = ..., loss: _Optional[float] = ..., correct: _Optional[int] = ..., lease: _Optional[int] = ..., epoch: _Optional[int] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., steps: _Optional[int] = ..., pin: _Optional[int] = ..., no_pull: _Optional[bool] = ..., have_version: _Optional[int] = ..., retain_previous: _Optional[bool] = ..., slot: _Optional[str] = ..., tensors: _Optional[bytes] = ..., partial: _Optional[bool] = ..., compute_s: _Optional[float] = ..., repeats: _Optional[bool] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("seq", "outcome", "reason", "version", "staleness", "learning_rate", "duplicate", "generation", "payload_bytes", "not_modified", "drain", "applied_version", "waiting", "status", "offset", "updates", "gradients")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOT_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    APPLIED_VERSION_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    outcome: Outcome
    reason: str
    version: int
    staleness: int
    learning_rate: float
    duplicate: bool
    generation: int
    payload_bytes: int
    not_modified: bool
    drain: bool
    applied_version: int
    waiting: bool
    status: int
    offset: int
    updates: _containers.RepeatedScalarFieldContainer[int]
    gradients: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, seq: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., version: _Optional[int] = ..., staleness: _Optional[int] = ..., learning_rate: _Optional[float] = ..., duplicate: _Optional[bool] = ..., generation: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., not_modified: _Optional[bool] = ..., drain: _Optional[bool] = ..., applied_version: _Optional[int] = ..., waiting: _Optional[bool] = ..., status: _Optional[int] = ..., offset: _Optional[int] = ..., updates: _Optional[_Iterable[int]] = ..., gradients: _Optional[_Iterable[int]] = ...) -> None: ...
