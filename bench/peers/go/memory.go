package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	batchSize = 1024 * 1024
	// A prime, so that messages are cut anywhere.
	pieceSize = 65521
)

// A reader that gives at most one piece at a time.
type pieces struct {
	data  []byte
	piece int
}

func (p *pieces) Read(buffer []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	length := p.piece
	if length > len(p.data) {
		length = len(p.data)
	}
	n := copy(buffer, p.data[:length])
	p.data = p.data[n:]
	return n, nil
}

func message(name string) []byte {
	switch name {
	case "frames":
		frame := bytes.Repeat([]byte("f"), 64)
		binary.BigEndian.PutUint32(frame, 60)
		return frame
	case "readUntil":
		head := []byte("GET / HTTP/1.1\r\nHost: example.org\r\nX-Padding: ")
		head = append(head, bytes.Repeat([]byte("p"), 252-len(head))...)
		return append(head, "\r\n\r\n"...)
	default:
		return append(bytes.Repeat([]byte("l"), 63), '\n')
	}
}

func readLine(source io.Reader) (messages, length int) {
	reader := bufio.NewReaderSize(source, bufferSize)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		messages++
		length += len(line)
	}
}

func scanLines(source io.Reader) (messages, length int) {
	scanner := bufio.NewScanner(source)
	for scanner.Scan() {
		messages++
		length += len(scanner.Text()) + 1
	}
	return
}

func frames(source io.Reader) (messages, length int) {
	reader := bufio.NewReaderSize(source, bufferSize)
	head := make([]byte, 4)
	for {
		if _, err := io.ReadFull(reader, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(reader, body); err != nil {
			return
		}
		messages++
		length += len(head) + len(body)
	}
}

func readUntil(source io.Reader) (messages, length int) {
	reader := bufio.NewReaderSize(source, bufferSize)
	var head []byte
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return
		}
		head = append(head, line...)
		if len(line) == 2 && line[0] == '\r' {
			messages++
			length += len(head)
			head = nil
		}
	}
}

var cases = map[string]func(io.Reader) (int, int){
	"readLine":  readLine,
	"lines":     scanLines,
	"frames":    frames,
	"readUntil": readUntil,
}

func cpu() (user, system float64) {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime), seconds(usage.Stime)
}

func timeLine(length int) float64 {
	line := append(bytes.Repeat([]byte("x"), length), '\n')
	started := time.Now()
	result, err := bufio.NewReader(&pieces{line, 1024}).ReadBytes('\n')
	if err != nil || len(result) != length+1 {
		fmt.Fprintln(os.Stderr, "a line of another length")
		os.Exit(1)
	}
	return time.Since(started).Seconds()
}

func memory(name string, total int) {
	if name == "long-line" {
		timeLine(4 * batchSize)
		once := timeLine(total)
		userBefore, systemBefore := cpu()
		twice := timeLine(2 * total)
		user, system := cpu()
		fmt.Printf(`{"messages":%d,"bytes":%d,"errors":0,"seconds":%f,"user":%f,"system":%f,"growth":%f}`+"\n",
			2*total/1024, 2*total, twice, user-userBefore, system-systemBefore, twice/once)
		return
	}
	work := cases[name]
	if work == nil {
		fmt.Fprintln(os.Stderr, "no case", name)
		os.Exit(2)
	}
	one := message(name)
	batch := bytes.Repeat(one, batchSize/len(one))
	batches := total / batchSize
	if batches < 1 {
		batches = 1
	}
	for i := 0; i < 4 || i < batches/4; i++ {
		work(&pieces{batch, pieceSize})
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	userBefore, systemBefore := cpu()
	messages, errors := 0, 0
	started := time.Now()
	for i := 0; i < batches; i++ {
		found, length := work(&pieces{batch, pieceSize})
		messages += found
		if found != batchSize/len(one) || length != batchSize {
			errors++
		}
	}
	seconds := time.Since(started).Seconds()
	user, system := cpu()
	runtime.ReadMemStats(&after)
	fmt.Printf(`{"messages":%d,"bytes":%d,"errors":%d,"seconds":%f,"user":%f,"system":%f,"allocated":%d}`+"\n",
		messages, batches*batchSize, errors, seconds, user-userBefore, system-systemBefore, after.TotalAlloc-before.TotalAlloc)
}
