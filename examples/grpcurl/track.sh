#!/bin/sh
# Send records to walbatch from the shell, with https://github.com/fullstorydev/grpcurl: sh track.sh [ADDRESS]
# It learns of the calls by reflection (WALBATCH_GRPC_REFLECTION), so it needs no proto file.
set -eu
address=${1:-127.0.0.1:50051}
id=$(cat /proc/sys/kernel/random/uuid)

# One event. The id is made once: whoever repeats the call stores nothing twice.
grpcurl -plaintext -max-time 10 -d '{
  "event": {"event_id": "'"$id"'", "name": "Order Completed", "distinct_id": "user-1",
            "properties": {"amount": 49.99}}
}' "$address" analytics.v1.AnalyticsService/TrackEvent

# What is known of a user.
grpcurl -plaintext -max-time 10 -d '{
  "user_id": "user-1", "anonymous_id": "visitor-1", "traits": {"plan": "pro"}
}' "$address" analytics.v1.AnalyticsService/IdentifyUser

# Several records of any kind, in one commit.
grpcurl -plaintext -max-time 10 -d '{
  "records": [
    {"event": {"name": "Page Viewed", "distinct_id": "user-1", "event_time": "2026-11-23T08:30:00Z"}},
    {"profile_update": {"distinct_id": "user-1", "add": {"struct": {"visits": 1}}}},
    {"group_update": {"group_key": "company", "group_id": "acme", "set": {"json": "{\"plan\": \"pro\"}"}}},
    {"identity_link": {"identified_id": "user-1", "anonymous_id": "visitor-2"}}
  ]
}' "$address" analytics.v1.AnalyticsService/Ingest

# Is it ready?
grpcurl -plaintext -max-time 10 -d '{"service": "analytics.v1.AnalyticsService"}' \
  "$address" grpc.health.v1.Health/Check
