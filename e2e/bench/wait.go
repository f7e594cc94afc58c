package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func await(what string, condition func() bool) error {
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain: %s", what)
		}
	}
	return nil
}

func awaitDial(address string) error {
	return await(address+" answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// metric reads one number of /metrics.
func (r *replica) metric(name string) (float64, error) {
	response, err := http.Get("http://" + r.private + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

func (r *replica) awaitListening() error {
	return await("the replica listens to the database", func() bool {
		value, err := r.metric("oidc_bridge_listening")
		return err == nil && value == 1
	})
}
