// Send records to walbatch: go run . [ADDRESS]
//
// An event has its id and its time before the first try, so that it is the same event however often it is sent. gRPC
// itself waits for the server and repeats what ended with UNAVAILABLE, as service-config.json says.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "example.com/track/analyticsv1"
)

func newEvent(name, distinctID, propertiesJSON string) *pb.Event {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		panic(err) // there is no chance left in this machine
	}
	return &pb.Event{
		EventId:    fmt.Sprintf("%x", id),
		Name:       name,
		DistinctId: distinctID,
		EventTime:  timestamppb.Now(),
		Payload:    &pb.Event_PropertiesJson{PropertiesJson: propertiesJSON},
	}
}

func run(address string) error {
	config, err := os.ReadFile("../service-config.json")
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	analytics := pb.NewAnalyticsServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	event := newEvent("Order Completed", "user-1", `{"amount": 49.99}`)
	for time := 1; time <= 2; time++ { // the second time it is only recognised
		reply, err := analytics.TrackEvent(ctx, &pb.TrackEventRequest{Event: event})
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s, duplicate: %t\n", event.Name, reply.Durability, reply.Duplicate)
	}
	if _, err := analytics.IdentifyUser(ctx, &pb.IdentifyUserRequest{
		UserId:  "user-1",
		Payload: &pb.IdentifyUserRequest_TraitsJson{TraitsJson: `{"plan": "pro"}`},
	}); err != nil {
		return err
	}
	request := &pb.IngestRequest{}
	for _, name := range []string{"Page Viewed", "", "Signed Out"} {
		request.Records = append(request.Records, &pb.Record{
			Kind: &pb.Record_Event{Event: newEvent(name, "user-1", "{}")},
		})
	}
	answer, err := analytics.Ingest(ctx, request)
	if err != nil {
		return err
	}
	for _, rejection := range answer.Rejections { // a bug of ours: sending it again changes nothing
		fmt.Printf("record %d is refused: %s %s (%s)\n",
			rejection.Index, rejection.Field, rejection.Description, rejection.Reason)
	}
	fmt.Printf("%d accepted\n", answer.AcceptedCount)
	return nil
}

func whatToDo(err error) string {
	switch status.Code(err) {
	case codes.InvalidArgument:
		return "drop it, and correct the code"
	case codes.ResourceExhausted:
		return "keep it, and send it again in half a minute"
	default: // Unavailable, DeadlineExceeded, Canceled: it may be stored
		return "keep it, and send it again with the same event_id"
	}
}

func main() {
	address := "127.0.0.1:50051"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", whatToDo(err), err)
		os.Exit(1)
	}
}
