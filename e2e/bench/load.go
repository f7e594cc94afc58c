package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const connections = 32

// A load is what a contender is asked: requests in the order of the list, over and over, on keep-alive connections that wait for each answer.
type load struct {
	address  string
	requests [][]byte
	status   int    // of every answer
	limit    uint64 // of requests, for runAll
	next     atomic.Uint64
}

// An outcome is what a load came to in one round.
type outcome struct {
	perSecond float64
	p50, p99  time.Duration
	answers   int
}

// run asks for the duration, after a warm-up that is not counted. begin is called between the two.
func (l *load) run(warm, duration time.Duration, begin func()) (outcome, error) {
	var measuring, stopping atomic.Bool
	took := make([][]time.Duration, connections)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() { took[i], errs[i] = l.ask(&measuring, &stopping) })
	}
	time.Sleep(warm)
	begin()
	started := time.Now()
	measuring.Store(true)
	time.Sleep(duration)
	measuring.Store(false)
	elapsed := time.Since(started)
	stopping.Store(true)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return outcome{}, err
		}
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return outcome{}, fmt.Errorf("%s: no answer in %s", l.address, duration)
	}
	slices.Sort(all)
	return outcome{
		perSecond: float64(len(all)) / elapsed.Seconds(), answers: len(all), p50: quantile(all, .5), p99: quantile(all, .99),
	}, nil
}

// ask is one connection.
func (l *load) ask(measuring, stopping *atomic.Bool) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", l.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 16<<10)
	for !stopping.Load() {
		n := l.next.Add(1) - 1
		if l.limit > 0 && n >= l.limit {
			return took, nil
		}
		request := l.requests[n%uint64(len(l.requests))]
		started := time.Now()
		if _, err := conn.Write(request); err != nil {
			return nil, fmt.Errorf("%s: %w", l.address, err)
		}
		status, err := readAnswer(reader)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.address, err)
		}
		if status != l.status {
			return nil, fmt.Errorf("%s answers %d, want %d, to\n%s", l.address, status, l.status, request)
		}
		if measuring.Load() {
			took = append(took, time.Since(started))
		}
	}
	return took, nil
}

// runAll asks each request once.
func (l *load) runAll() error {
	var wg sync.WaitGroup
	errs := make([]error, connections)
	for i := range connections {
		wg.Go(func() { _, errs[i] = l.ask(&atomic.Bool{}, &atomic.Bool{}) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// once sends the request n of the list on a connection of its own.
func (l *load) once(n int) (status int, err error) {
	conn, err := net.Dial("tcp", l.address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write(l.requests[n]); err != nil {
		return 0, err
	}
	return readAnswer(bufio.NewReader(conn))
}

// readAnswer reads one answer with a Content-Length, as all of the servers here send them, and cheaply: the client shares the cores with them.
func readAnswer(reader *bufio.Reader) (status int, err error) {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := 0
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, reader, int64(length))
	return status, err
}

// A browser's headers: Chromium's at a fetch of a page, and what a proxy with TLS adds.
const fetchHeaders = "Host: " + publicHost + "\r\n" +
	"X-Forwarded-For: 203.0.113.7\r\n" +
	"X-Forwarded-Proto: https\r\n" +
	"sec-ch-ua-platform: \"Linux\"\r\n" +
	"User-Agent: " + userAgent + "\r\n" +
	"sec-ch-ua: \"Chromium\";v=\"142\", \"Google Chrome\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n" +
	"sec-ch-ua-mobile: ?0\r\n" +
	"Accept: */*\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: cors\r\n" +
	"Sec-Fetch-Dest: empty\r\n" +
	"Referer: https://" + publicHost + "/orders?page=2\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n"

const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"

// fetch is the request of a page for the path, with the session cookie and one of the application.
func fetch(path, cookie, more string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\n" + fetchHeaders + more + "Cookie: theme=dark; " + cookie + "\r\n\r\n")
}

func fetches(path string, cookies []string, more string) [][]byte {
	requests := make([][]byte, len(cookies))
	for i, cookie := range cookies {
		requests[i] = fetch(path, cookie, more)
	}
	return requests
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	if len(values) == 0 {
		return 0
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}
