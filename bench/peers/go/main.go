// Go's net and bufio: MODE BYTES SIZE for a server, memory CASE BYTES for the work in memory.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

const bufferSize = 65536

var (
	total int
	size  = 64
	reply []byte
)

func echo(conn net.Conn) {
	buffer := make([]byte, bufferSize)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if _, err := conn.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func echoTimeouts(conn net.Conn) {
	buffer := make([]byte, bufferSize)
	for {
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := conn.Read(buffer)
		if n > 0 {
			conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
			if _, err := conn.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func lines(conn net.Conn) {
	reader := bufio.NewReaderSize(conn, bufferSize)
	writer := bufio.NewWriterSize(conn, bufferSize)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		if _, err := writer.Write(line); err != nil {
			return
		}
		// Nothing is kept back while the next line has to be waited for.
		if reader.Buffered() == 0 {
			if writer.Flush() != nil {
				return
			}
		}
	}
}

func send(conn net.Conn) {
	chunk := make([]byte, size)
	for sent := 0; sent < total; sent += size {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

func receive(conn net.Conn) {
	buffer := make([]byte, bufferSize)
	received := 0
	for received < total {
		n, err := conn.Read(buffer)
		received += n
		if err != nil {
			return
		}
	}
	fmt.Fprintf(conn, "%d\n", received)
}

func writes(conn net.Conn) {
	chunk := make([]byte, size)
	writer := bufio.NewWriterSize(conn, bufferSize)
	for sent := 0; sent < total; sent += size {
		if _, err := writer.Write(chunk); err != nil {
			return
		}
	}
	writer.Flush()
}

func requests(conn net.Conn) {
	reader := bufio.NewReaderSize(conn, 4096)
	if _, err := reader.ReadSlice('\n'); err != nil {
		return
	}
	conn.Write(reply)
}

var servers = map[string]func(net.Conn){
	"echo":          echo,
	"echo-timeouts": echoTimeouts,
	"lines":         lines,
	"send":          send,
	"receive":       receive,
	"writes":        writes,
	"requests":      requests,
}

func argument(i int, otherwise int) int {
	if i >= len(os.Args) {
		return otherwise
	}
	n, err := strconv.Atoi(os.Args[i])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "memory" {
		memory(os.Args[2], argument(3, 0))
		return
	}
	if len(os.Args) < 2 || servers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "no such mode")
		os.Exit(2)
	}
	handler := servers[os.Args[1]]
	total = argument(2, 0)
	size = argument(3, 64)
	reply = make([]byte, size)
	reply[size-1] = '\n'

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		// At the end of input the harness is gone.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	go func() {
		// Before memory is read, garbage is collected.
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGUSR2)
		for range signals {
			debug.FreeOSMemory()
		}
	}()
	fmt.Println("PORT", listener.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			handler(conn)
		}()
	}
}
