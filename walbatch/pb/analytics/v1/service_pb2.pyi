import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_FSYNCED: _ClassVar[Durability]
    DURABILITY_REPLICATED: _ClassVar[Durability]
    DURABILITY_BUFFERED: _ClassVar[Durability]
DURABILITY_UNSPECIFIED: Durability
DURABILITY_FSYNCED: Durability
DURABILITY_REPLICATED: Durability
DURABILITY_BUFFERED: Durability

class Event(_message.Message):
    __slots__ = ("event_id", "name", "distinct_id", "device_id", "user_id", "event_time", "ip", "properties_json", "properties")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_JSON_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    name: str
    distinct_id: str
    device_id: str
    user_id: str
    event_time: _timestamp_pb2.Timestamp
    ip: str
    properties_json: str
    properties: _struct_pb2.Struct
    def __init__(self, event_id: _Optional[str] = ..., name: _Optional[str] = ..., distinct_id: _Optional[str] = ..., device_id: _Optional[str] = ..., user_id: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ip: _Optional[str] = ..., properties_json: _Optional[str] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Properties(_message.Message):
    __slots__ = ("json", "struct")
    JSON_FIELD_NUMBER: _ClassVar[int]
    STRUCT_FIELD_NUMBER: _ClassVar[int]
    json: str
    struct: _struct_pb2.Struct
    def __init__(self, json: _Optional[str] = ..., struct: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class PropertyNames(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ProfileDeletion(_message.Message):
    __slots__ = ("ignore_alias",)
    IGNORE_ALIAS_FIELD_NUMBER: _ClassVar[int]
    ignore_alias: bool
    def __init__(self, ignore_alias: _Optional[bool] = ...) -> None: ...

class ProfileUpdate(_message.Message):
    __slots__ = ("update_id", "distinct_id", "set", "set_once", "add", "append", "union", "remove", "unset", "delete", "ip", "ignore_time", "update_time")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_ID_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    SET_ONCE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    UNION_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    UNSET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    distinct_id: str
    set: Properties
    set_once: Properties
    add: Properties
    append: Properties
    union: Properties
    remove: Properties
    unset: PropertyNames
    delete: ProfileDeletion
    ip: str
    ignore_time: bool
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, update_id: _Optional[str] = ..., distinct_id: _Optional[str] = ..., set: _Optional[_Union[Properties, _Mapping]] = ..., set_once: _Optional[_Union[Properties, _Mapping]] = ..., add: _Optional[_Union[Properties, _Mapping]] = ..., append: _Optional[_Union[Properties, _Mapping]] = ..., union: _Optional[_Union[Properties, _Mapping]] = ..., remove: _Optional[_Union[Properties, _Mapping]] = ..., unset: _Optional[_Union[PropertyNames, _Mapping]] = ..., delete: _Optional[_Union[ProfileDeletion, _Mapping]] = ..., ip: _Optional[str] = ..., ignore_time: _Optional[bool] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GroupDeletion(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GroupUpdate(_message.Message):
    __slots__ = ("update_id", "group_key", "group_id", "set", "set_once", "union", "remove", "unset", "delete", "update_time")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_KEY_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    SET_ONCE_FIELD_NUMBER: _ClassVar[int]
    UNION_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    UNSET_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    group_key: str
    group_id: str
    set: Properties
    set_once: Properties
    union: Properties
    remove: Properties
    unset: PropertyNames
    delete: GroupDeletion
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, update_id: _Optional[str] = ..., group_key: _Optional[str] = ..., group_id: _Optional[str] = ..., set: _Optional[_Union[Properties, _Mapping]] = ..., set_once: _Optional[_Union[Properties, _Mapping]] = ..., union: _Optional[_Union[Properties, _Mapping]] = ..., remove: _Optional[_Union[Properties, _Mapping]] = ..., unset: _Optional[_Union[PropertyNames, _Mapping]] = ..., delete: _Optional[_Union[GroupDeletion, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IdentityLink(_message.Message):
    __slots__ = ("link_id", "identified_id", "anonymous_id", "merged_ids", "alias", "distinct_id")
    LINK_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTIFIED_ID_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_ID_FIELD_NUMBER: _ClassVar[int]
    MERGED_IDS_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_ID_FIELD_NUMBER: _ClassVar[int]
    link_id: str
    identified_id: str
    anonymous_id: str
    merged_ids: _containers.RepeatedScalarFieldContainer[str]
    alias: str
    distinct_id: str
    def __init__(self, link_id: _Optional[str] = ..., identified_id: _Optional[str] = ..., anonymous_id: _Optional[str] = ..., merged_ids: _Optional[_Iterable[str]] = ..., alias: _Optional[str] = ..., distinct_id: _Optional[str] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("event", "profile_update", "identity_link", "group_update")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_LINK_FIELD_NUMBER: _ClassVar[int]
    GROUP_UPDATE_FIELD_NUMBER: _ClassVar[int]
    event: Event
    profile_update: ProfileUpdate
    identity_link: IdentityLink
    group_update: GroupUpdate
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., profile_update: _Optional[_Union[ProfileUpdate, _Mapping]] = ..., identity_link: _Optional[_Union[IdentityLink, _Mapping]] = ..., group_update: _Optional[_Union[GroupUpdate, _Mapping]] = ...) -> None: ...

class TrackEventRequest(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: Event
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class TrackEventResponse(_message.Message):
    __slots__ = ("event_id", "duplicate", "durability")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    duplicate: bool
    durability: Durability
    def __init__(self, event_id: _Optional[str] = ..., duplicate: _Optional[bool] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class IdentifyUserRequest(_message.Message):
    __slots__ = ("user_id", "anonymous_id", "traits_json", "traits", "event_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ANONYMOUS_ID_FIELD_NUMBER: _ClassVar[int]
    TRAITS_JSON_FIELD_NUMBER: _ClassVar[int]
    TRAITS_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    anonymous_id: str
    traits_json: str
    traits: _struct_pb2.Struct
    event_id: str
    def __init__(self, user_id: _Optional[str] = ..., anonymous_id: _Optional[str] = ..., traits_json: _Optional[str] = ..., traits: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., event_id: _Optional[str] = ...) -> None: ...

class IdentifyUserResponse(_message.Message):
    __slots__ = ("event_id", "duplicate", "durability")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    duplicate: bool
    durability: Durability
    def __init__(self, event_id: _Optional[str] = ..., duplicate: _Optional[bool] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("index", "field", "reason", "description")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    field: str
    reason: str
    description: str
    def __init__(self, index: _Optional[int] = ..., field: _Optional[str] = ..., reason: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("accepted_count", "duplicate_count", "rejections", "durability")
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    accepted_count: int
    duplicate_count: int
    rejections: _containers.RepeatedCompositeFieldContainer[Rejection]
    durability: Durability
    def __init__(self, accepted_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., rejections: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class IngestStreamRequest(_message.Message):
    __slots__ = ("sequence", "records")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, sequence: _Optional[int] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class StreamRejection(_message.Message):
    __slots__ = ("sequence", "rejection")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    rejection: Rejection
    def __init__(self, sequence: _Optional[int] = ..., rejection: _Optional[_Union[Rejection, _Mapping]] = ...) -> None: ...

class IngestStreamResponse(_message.Message):
    __slots__ = ("acked_sequence", "rejections", "accepted_count", "duplicate_count", "durability")
    ACKED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    acked_sequence: int
    rejections: _containers.RepeatedCompositeFieldContainer[StreamRejection]
    accepted_count: int
    duplicate_count: int
    durability: Durability
    def __init__(self, acked_sequence: _Optional[int] = ..., rejections: _Optional[_Iterable[_Union[StreamRejection, _Mapping]]] = ..., accepted_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...
