package bridgetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// CountingProxy stands between a client and PostgreSQL and counts what the client sends. The server has to take connections without TLS.
type CountingProxy struct {
	url             string
	network, server string // of the server
	listener        net.Listener
	counts          Counts

	mu    sync.Mutex
	open  map[net.Conn]bool // both sides of every connection
	cut   bool              // no connection lives, and none is let through
	tasks sync.WaitGroup
}

// StartCountingProxy starts a proxy in front of a database. The context bounds the start only; the caller ends it with Close.
func StartCountingProxy(ctx context.Context, databaseURL string) (*CountingProxy, error) {
	config, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("counting proxy: %w", err)
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return nil, fmt.Errorf("counting proxy: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("counting proxy: %w", err)
	}
	query := u.Query()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = listener.Addr().String(), query.Encode()
	p := &CountingProxy{url: u.String(), listener: listener, open: map[net.Conn]bool{}}
	p.network, p.server = pgconn.NetworkAddress(config.Host, config.Port)
	p.tasks.Go(p.accept)
	return p, nil
}

// URL returns the database's URL through the proxy.
func (p *CountingProxy) URL() string { return p.url }

// Counts returns the live counts of all connections.
func (p *CountingProxy) Counts() *Counts { return &p.counts }

// Close cuts all connections and waits until they are gone.
func (p *CountingProxy) Close() error {
	err := p.listener.Close()
	p.Cut()
	p.tasks.Wait()
	return err
}

// Cut ends all connections and lets no new one through, as when the server is down.
func (p *CountingProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for conn := range p.open {
		conn.Close()
	}
}

// Mend ends a Cut.
func (p *CountingProxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *CountingProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.tasks.Go(func() { p.forward(client) })
	}
}

// forward copies both ways until either side ends.
func (p *CountingProxy) forward(client net.Conn) {
	defer p.track(client)()
	server, err := net.Dial(p.network, p.server)
	if err != nil {
		return // the client sees a connection that ends, as with a server that is down
	}
	defer p.track(server)()
	p.tasks.Go(func() {
		io.Copy(client, server)
		client.Close()
	})
	reader := bufio.NewReader(client)
	if forwardStartup(reader, client, server) == nil {
		p.counts.forwardMessages(reader, server)
	}
}

// track closes the connection with the proxy, and with the function that it returns.
func (p *CountingProxy) track(conn net.Conn) (untrack func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		conn.Close()
	}
	p.open[conn] = true
	return func() {
		conn.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, conn)
	}
}

// Codes that a first message may have in place of a protocol version (PostgreSQL documentation, "Message Formats").
const (
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

// forwardStartup forwards the one message that has no type. Encryption is refused, the counts need the text.
func forwardStartup(reader *bufio.Reader, client, server net.Conn) error {
	for {
		head, err := reader.Peek(8)
		if err != nil {
			return err
		}
		length, code := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
		if code != sslRequest && code != gssEncRequest {
			_, err := io.CopyN(server, reader, int64(length))
			return err
		}
		if _, err := reader.Discard(8); err != nil {
			return err
		}
		if _, err := client.Write([]byte("N")); err != nil {
			return err
		}
	}
}

// Counts tells what clients sent since the last Reset, the messages of connecting and logging in left out. Its methods may be called at
// any time. A client that has its answer finds its request counted.
type Counts struct {
	mu         sync.Mutex
	roundTrips int
	statements []string
}

// RoundTrips returns how often a client had to wait for the server: its simple queries and Sync messages.
// Mind that drivers prepare a statement in a round trip of its own when they first meet it on a connection.
func (c *Counts) RoundTrips() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roundTrips
}

// Statements returns the SQL texts that were executed, in order. A simple query is one text, however many statements it holds.
func (c *Counts) Statements() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.statements)
}

// Begins returns how many statements opened a transaction.
func (c *Counts) Begins() int { return c.matching(beginStatement) }

// Commits returns how many statements committed one.
func (c *Counts) Commits() int { return c.matching(commitStatement) }

var (
	beginStatement  = regexp.MustCompile(`(?i)^\s*(begin|start\s+transaction)\b`)
	commitStatement = regexp.MustCompile(`(?i)^\s*(commit|end)\b`)
)

func (c *Counts) matching(pattern *regexp.Regexp) int {
	n := 0
	for _, sql := range c.Statements() {
		if pattern.MatchString(sql) {
			n++
		}
	}
	return n
}

// Reset forgets everything counted so far.
func (c *Counts) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roundTrips, c.statements = 0, nil
}

// forwardMessages counts and forwards one connection's messages until it ends.
func (c *Counts) forwardMessages(reader *bufio.Reader, server io.Writer) {
	prepared := map[string]string{} // statement name -> SQL
	portals := map[string]string{}  // portal name -> SQL
	for {
		head, err := reader.Peek(5)
		if err != nil {
			return
		}
		message := make([]byte, 1+binary.BigEndian.Uint32(head[1:])) // the length counts itself, but not the type
		if _, err := io.ReadFull(reader, message); err != nil {
			return
		}
		body := message[5:]
		switch message[0] {
		case 'Q': // simple query: SQL
			sql, _ := cutString(body)
			c.add(1, sql)
		case 'P': // Parse: statement name, SQL, …
			name, rest := cutString(body)
			prepared[name], _ = cutString(rest)
		case 'B': // Bind: portal name, statement name, …
			portal, rest := cutString(body)
			name, _ := cutString(rest)
			portals[portal] = prepared[name]
		case 'E': // Execute: portal name, …
			portal, _ := cutString(body)
			c.add(0, portals[portal])
		case 'S': // Sync
			c.add(1)
		}
		if _, err := server.Write(message); err != nil {
			return
		}
	}
}

func (c *Counts) add(roundTrips int, statements ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roundTrips += roundTrips
	c.statements = append(c.statements, statements...)
}

// cutString takes a string that ends with a zero byte.
func cutString(body []byte) (text string, rest []byte) {
	before, after, _ := bytes.Cut(body, []byte{0})
	return string(before), after
}
