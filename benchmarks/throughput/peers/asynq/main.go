// Command asynq-peer is the asynq side of the throughput benchmark: `work` runs asynq servers with a
// no-op handler, `enqueue` submits no-op tasks. Both are started by peers/drive.py, which speaks the same
// barrier with every peer: the producer submits its warm-up, prints "ready", waits for a line on standard
// input, submits, prints one line of JSON and waits for the end of its input. Instants are CLOCK_MONOTONIC
// nanoseconds, so that they compare with those of the other processes of this machine.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sys/unix"
)

const (
	taskType = "noop"
	// A completed task is kept this long: without a retention asynq forgets it, and there is no durable result.
	retention = time.Hour
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: asynq-peer work|enqueue [flags]")
	}
	switch os.Args[1] {
	case "work":
		work(os.Args[2:])
	case "enqueue":
		enqueue(os.Args[2:])
	default:
		fail("unknown mode %q: allowed are work, enqueue", os.Args[1])
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "asynq-peer: "+format+"\n", values...)
	os.Exit(2)
}

func nowNs() int64 {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &at); err != nil {
		fail("the monotonic clock cannot be read: %v", err)
	}
	return at.Nano()
}

// work runs several servers in one process: one asynq server dequeues one task at a time, a round trip each,
// so that a single server leaves Redis' group commit of the append-only file unused.
func work(args []string) {
	flags := flag.NewFlagSet("work", flag.ExitOnError)
	address := flags.String("redis", "127.0.0.1:6379", "address of Redis")
	servers := flags.Int("servers", 4, "asynq servers in this process, each with a dequeuing loop of its own")
	concurrency := flags.Int("concurrency", 16, "tasks in execution at once, per server")
	check := flags.Duration("check-interval", 2*time.Millisecond, "wait between looks at an empty queue")
	startsFile := flags.String("starts", "", "file to append `ID NANOSECONDS` to at each start; empty: none")
	_ = flags.Parse(args)

	handler := func(context.Context, *asynq.Task) error { return nil }
	if *startsFile != "" {
		file, err := os.OpenFile(*startsFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			fail("the file of starts cannot be opened: %v", err)
		}
		handler = func(_ context.Context, task *asynq.Task) error {
			_, err := file.WriteString(fmt.Sprintf("%s %d\n", task.Payload(), nowNs()))
			return err
		}
	}
	running := make([]*asynq.Server, 0, *servers)
	for range *servers {
		server := asynq.NewServer(
			asynq.RedisClientOpt{Addr: *address, PoolSize: *concurrency + 8},
			asynq.Config{
				Concurrency:       *concurrency,
				TaskCheckInterval: *check,
				LogLevel:          asynq.WarnLevel,
			},
		)
		if err := server.Start(asynq.HandlerFunc(handler)); err != nil {
			fail("the server did not start: %v", err)
		}
		running = append(running, server)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	for _, server := range running {
		server.Shutdown()
	}
}

// submit is one record of the open-loop run: when it was due and when the client was called.
type submit struct {
	ID       string `json:"id"`
	DueNs    int64  `json:"due_ns"`
	SubmitNs int64  `json:"submit_ns"`
}

type report struct {
	Submitted int64    `json:"submitted"`
	FirstNs   int64    `json:"first_ns"`
	LastNs    int64    `json:"last_ns"`
	Submits   []submit `json:"submits"`
}

func enqueue(args []string) {
	flags := flag.NewFlagSet("enqueue", flag.ExitOnError)
	address := flags.String("redis", "127.0.0.1:6379", "address of Redis")
	prefix := flags.String("prefix", "p", "prefix of the task ids")
	count := flags.Int("count", 1000, "tasks to submit")
	concurrency := flags.Int("concurrency", 32, "submissions under way at once (closed loop)")
	rate := flags.Float64("rate", 0, "tasks a second (open loop); 0: closed loop")
	warmUp := flags.Int("warm-up", 50, "tasks submitted before ready is said")
	_ = flags.Parse(args)

	client := asynq.NewClient(asynq.RedisClientOpt{Addr: *address, PoolSize: *concurrency})
	defer client.Close()
	send := func(id string) {
		task := asynq.NewTask(taskType, []byte(id))
		if _, err := client.Enqueue(task, asynq.TaskID(id), asynq.Retention(retention)); err != nil {
			fail("task %s was not accepted: %v", id, err)
		}
	}
	closedLoop(*warmUp, *concurrency, func(index int) { send(fmt.Sprintf("%s-warm-%d", *prefix, index)) })
	fmt.Println("ready")
	input := bufio.NewReader(os.Stdin)
	if _, err := input.ReadString('\n'); err != nil {
		return // the driver gave up before the start
	}
	out := report{Submitted: int64(*count), FirstNs: nowNs(), Submits: []submit{}}
	if *rate > 0 {
		out.Submits = openLoop(*count, *rate, *prefix, send)
	} else {
		closedLoop(*count, *concurrency, func(index int) { send(fmt.Sprintf("%s-%d", *prefix, index)) })
	}
	out.LastNs = nowNs()
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		fail("the report could not be written: %v", err)
	}
	_, _ = io.Copy(io.Discard, input)
}

func closedLoop(count, concurrency int, send func(int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range concurrency {
		group.Add(1)
		go func() {
			defer group.Done()
			for index := next.Add(1) - 1; index < int64(count); index = next.Add(1) - 1 {
				send(int(index))
			}
		}()
	}
	group.Wait()
}

// openLoop submits at fixed instants, each in a goroutine of its own: a slow submission delays no other.
func openLoop(count int, rate float64, prefix string, send func(string)) []submit {
	submits := make([]submit, count)
	var group sync.WaitGroup
	begin := nowNs()
	for index := range count {
		due := begin + int64(float64(index)*1e9/rate)
		time.Sleep(time.Duration(due - nowNs()))
		group.Add(1)
		go func() {
			defer group.Done()
			id := fmt.Sprintf("%s-%d", prefix, index)
			submits[index] = submit{ID: id, DueNs: due, SubmitNs: nowNs()}
			send(id)
		}()
	}
	group.Wait()
	return submits
}
