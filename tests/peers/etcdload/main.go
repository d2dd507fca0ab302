// Command etcdload puts values into etcd, or gets them linearizably (etcd's default), with a fixed number of
// requests in flight, spread over all endpoints, and prints one line of JSON. Built by ../etcd.sh against Debian's golang-etcd-server-dev.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
)

type result struct {
	Work             string  `json:"work"`
	Size             int     `json:"size"`
	Inflight         int     `json:"inflight"`
	Ops              int     `json:"ops"`
	Errors           int64   `json:"errors"`
	OpsPerSecond     float64 `json:"ops_per_s"`
	P50Ms            float64 `json:"p50_ms"`
	P99Ms            float64 `json:"p99_ms"`
	MaxMs            float64 `json:"max_ms"`
	ClientCPUMicros  float64 `json:"cpu_us_per_op_client"`
	ServersCPUMicros float64 `json:"cpu_us_per_op_servers"`
}

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:2379", "the members, separated by commas")
	pids := flag.String("pids", "", "process ids of the members, separated by commas")
	work := flag.String("work", "put", "put or get")
	size := flag.Int("size", 256, "bytes of a value")
	inflight := flag.Int("inflight", 256, "requests in flight")
	seconds := flag.Int("seconds", 10, "how long to measure, after a second to warm up")
	keys := flag.Int("keys", 100000, "distinct keys")
	flag.Parse()
	if *work != "put" && *work != "get" {
		log.Fatalf("work is %q; allowed: put, get", *work)
	}
	if *size < 0 || *inflight < 1 || *seconds < 1 || *keys < 1 {
		log.Fatal("size must not be negative; inflight, seconds and keys must be at least 1")
	}

	// One connection to each member: with one for all, etcd's client would use a single member.
	var clients []*clientv3.Client
	for _, endpoint := range strings.Split(*endpoints, ",") {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   []string{endpoint},
			DialTimeout: 5 * time.Second,
		})
		if err != nil {
			log.Fatalf("%s: %v", endpoint, err)
		}
		defer client.Close()
		clients = append(clients, client)
	}
	if *work == "get" {
		if err := fill(clients, *size, *keys); err != nil {
			log.Fatalf("filling: %v", err)
		}
	}
	if err := run(clients, *work, strings.Split(*pids, ","), *size, *inflight, *seconds, *keys); err != nil {
		log.Fatal(err)
	}
}

func key(number int) string {
	return fmt.Sprintf("key-%09d", number)
}

// fill puts every key once, with many in flight.
func fill(clients []*clientv3.Client, size, keys int) error {
	const workers = 256
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	failures := make(chan error, workers)
	for worker := 0; worker < workers; worker++ {
		go func(worker int) {
			value := string(make([]byte, size))
			for number := worker; number < keys; number += workers {
				if _, err := clients[worker%len(clients)].Put(ctx, key(number), value); err != nil {
					failures <- err
					return
				}
			}
			failures <- nil
		}(worker)
	}
	for worker := 0; worker < workers; worker++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// get reads a key linearizably, as etcd does unless told otherwise.
func get(ctx context.Context, client *clientv3.Client, key string) error {
	response, err := client.Get(ctx, key)
	if err == nil && len(response.Kvs) != 1 {
		err = fmt.Errorf("%s is not there", key)
	}
	return err
}

func run(clients []*clientv3.Client, work string, pids []string, size, inflight, seconds, keys int) error {
	limit := time.Duration(seconds)*time.Second + 30*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var measuring, done atomic.Bool
	var errors int64
	latencies := make([][]time.Duration, inflight)
	var workers sync.WaitGroup
	for worker := 0; worker < inflight; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			random := rand.New(rand.NewSource(int64(worker)))
			value := make([]byte, size)
			random.Read(value)
			client := clients[worker%len(clients)]
			for !done.Load() && ctx.Err() == nil {
				key := key(random.Intn(keys))
				counts := measuring.Load()
				start := time.Now()
				var err error
				if work == "get" {
					err = get(ctx, client, key)
				} else {
					_, err = client.Put(ctx, key, string(value))
				}
				took := time.Since(start)
				if err != nil {
					atomic.AddInt64(&errors, 1)
					continue
				}
				if counts && measuring.Load() {
					latencies[worker] = append(latencies[worker], took)
				}
			}
		}(worker)
	}

	time.Sleep(time.Second)
	clientBefore, serversBefore, err := cpu(pids)
	if err != nil {
		return err
	}
	start := time.Now()
	measuring.Store(true)
	time.Sleep(time.Duration(seconds) * time.Second)
	measuring.Store(false)
	took := time.Since(start)
	clientAfter, serversAfter, err := cpu(pids)
	if err != nil {
		return err
	}
	done.Store(true)
	workers.Wait()

	var all []time.Duration
	for _, some := range latencies {
		all = append(all, some...)
	}
	if len(all) == 0 {
		return fmt.Errorf("no %s went through (%d errors)", work, errors)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	at := func(part float64) float64 {
		return float64(all[int(part*float64(len(all)-1))].Microseconds()) / 1000
	}
	ops := float64(len(all))
	return json.NewEncoder(os.Stdout).Encode(result{
		Work:             work,
		Size:             size,
		Inflight:         inflight,
		Ops:              len(all),
		Errors:           errors,
		OpsPerSecond:     ops / took.Seconds(),
		P50Ms:            at(0.5),
		P99Ms:            at(0.99),
		MaxMs:            at(1),
		ClientCPUMicros:  (clientAfter - clientBefore) / ops,
		ServersCPUMicros: (serversAfter - serversBefore) / ops,
	})
}

// cpu returns the processor time that this process and the given ones have used, in microseconds.
func cpu(pids []string) (client, servers float64, err error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, 0, err
	}
	client = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1000
	for _, pid := range pids {
		if pid == "" {
			continue
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, 0, err
		}
		// The command's name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
		text := string(stat)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		for _, field := range fields[11:13] {
			ticks, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, 0, err
			}
			// Linux counts 100 ticks a second for every program.
			servers += ticks * 10000
		}
	}
	return client, servers, nil
}
