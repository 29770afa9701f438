// Go's net/http as an upstream; README.md says what is served.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"hash/adler32"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

var (
	dir     = os.Getenv("PEER_DIR")
	big     = make([]byte, 10<<20)
	writing sync.Mutex
)

func given(value string) string {
	if value == "" {
		return "-"
	}
	return value
}

func seen(r *http.Request) {
	_, port, _ := net.SplitHostPort(r.RemoteAddr)
	columns := []string{given(r.Header.Get("X-Cell")), r.Method, r.RequestURI, r.URL.Path, port, given(r.Host)}
	for _, name := range []string{"Authorization", "X-Leastgate-Subject", "X-Forwarded-For", "Expect", "Te", "Connection", "Upgrade"} {
		columns = append(columns, given(r.Header.Get(name)))
	}
	length := "-"
	if r.ContentLength >= 0 && r.Header.Get("Content-Length") != "" {
		length = r.Header.Get("Content-Length")
	}
	columns = append(columns, length, given(strings.Join(r.TransferEncoding, ",")), "-")
	writing.Lock()
	defer writing.Unlock()
	log, err := os.OpenFile(filepath.Join(dir, "seen.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer log.Close()
	fmt.Fprintln(log, strings.Join(columns, "\t"))
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func parts(w http.ResponseWriter) {
	for _, part := range []string{"one ", "two ", "three"} {
		io.WriteString(w, part)
		w.(http.Flusher).Flush()
	}
}

func handle(w http.ResponseWriter, r *http.Request) {
	seen(r)
	switch r.URL.Path {
	case "/v1/sum":
		hash := adler32.New()
		length, err := io.Copy(hash, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		say(w, 200, fmt.Sprint(length, " ", hash.Sum32()))
	case "/v1/empty":
		w.WriteHeader(204)
	case "/v1/unchanged":
		w.Header().Set("Etag", `"1"`)
		w.WriteHeader(304)
	case "/v1/big":
		w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		w.Write(big)
	case "/v1/chunked":
		parts(w)
	case "/v1/trailers":
		w.Header().Set("Trailer", "X-Checksum")
		parts(w)
		w.Header().Set("X-Checksum", "13")
	case "/v1/hints":
		w.Header().Set("Link", "</style.css>; rel=preload; as=style")
		w.WriteHeader(103)
		say(w, 200, "hello")
	case "/v1/refuse":
		say(w, 413, "too much")
	case "/v1/stream":
		w.Header().Set("Content-Type", "text/event-stream")
		for number := 0; number < 5; number++ {
			time.Sleep(200 * time.Millisecond)
			fmt.Fprintf(w, "data: %d\n\n", number)
			w.(http.Flusher).Flush()
		}
	case "/v1/ws":
		websocket(w, r)
	default:
		say(w, 200, "hello")
	}
}

// Enough of RFC 6455 for short unfragmented frames: an echo, and a close for a close.
func websocket(w http.ResponseWriter, r *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if !ok || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		say(w, 400, "no upgrade")
		return
	}
	digest := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, stream, err := hijacker.Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(digest[:]))
	for echo(stream.Reader, conn) {
	}
}

func echo(from *bufio.Reader, to io.Writer) bool {
	head := make([]byte, 6)
	if _, err := io.ReadFull(from, head); err != nil || head[1]&127 > 125 {
		return false
	}
	frame := make([]byte, 2+int(head[1]&127))
	frame[0], frame[1] = head[0], head[1]&127
	if _, err := io.ReadFull(from, frame[2:]); err != nil {
		return false
	}
	for at := range frame[2:] {
		frame[2+at] ^= head[2+at%4]
	}
	_, err := to.Write(frame)
	return err == nil && head[0]&15 != 8
}

func main() {
	for at := range big {
		big[at] = byte(at % 251)
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PEER_PORT"), Handler: http.HandlerFunc(handle)}
	var err error
	if os.Getenv("PEER_TLS") == "1" {
		err = server.ListenAndServeTLS(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	} else {
		err = server.ListenAndServe()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
