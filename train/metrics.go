package train

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// metrics writes the losses of each step to metrics.jsonl, one JSON object per line, and
// to a TensorBoard event file.
type metrics struct {
	file   *os.File
	lines  *bufio.Writer
	events *eventFile
}

// openMetrics continues the log after step at. Entries of later steps, written by a
// training that ended between two checkpoints, are removed.
func openMetrics(dir string, at int) (*metrics, error) {
	path := filepath.Join(dir, MetricsFile)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	keep := 0
	for rest := old; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		var v struct{ Step int }
		if !whole || json.Unmarshal(line, &v) != nil || v.Step > at {
			break
		}
		keep += len(line) + 1
		rest = after
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(keep)); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(int64(keep), 0); err != nil {
		f.Close()
		return nil, err
	}
	m := &metrics{file: f, lines: bufio.NewWriter(f)}
	if m.events, err = newEventFile(dir, at); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *metrics) add(step int, took time.Duration, l Losses) {
	fmt.Fprintf(m.lines, `{"step":%d`, step)
	if took > 0 {
		fmt.Fprintf(m.lines, `,"seconds":%.6f`, took.Seconds())
	}
	for _, x := range l {
		fmt.Fprintf(m.lines, `,%q:%s`, x.Name, jsonNumber(x.Value))
		m.events.scalar(step, x.Name, x.Value)
	}
	m.lines.WriteString("}\n")
}

func jsonNumber(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "null"
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func (m *metrics) flush() error {
	if err := m.lines.Flush(); err != nil {
		return err
	}
	return m.events.w.Flush()
}

func (m *metrics) close() {
	m.flush()
	m.file.Close()
	m.events.file.Close()
}

// eventFile is a TensorBoard event file. Each record is a length, its checksum, an Event
// message and its checksum (TensorFlow's TFRecord, event.proto and summary.proto).
type eventFile struct {
	file *os.File
	w    *bufio.Writer
}

func newEventFile(dir string, at int) (*eventFile, error) {
	now := time.Now()
	name := fmt.Sprintf("events.out.tfevents.%d.cyclecap.%d", now.Unix(), os.Getpid())
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	e := &eventFile{f, bufio.NewWriter(f)}
	var b []byte
	b = protowire.AppendTag(b, 3, protowire.BytesType) // file_version
	e.event(0, protowire.AppendString(b, "brain.Event:2"))
	// A session log with status START (1) makes TensorBoard discard this and later steps
	// of earlier files.
	var s []byte
	s = protowire.AppendTag(s, 1, protowire.VarintType)
	s = protowire.AppendVarint(s, 1)
	b = protowire.AppendTag(nil, 7, protowire.BytesType)
	e.event(at+1, protowire.AppendBytes(b, s))
	return e, nil
}

func (e *eventFile) scalar(step int, tag string, v float64) {
	var value []byte // Summary.Value
	value = protowire.AppendTag(value, 1, protowire.BytesType)
	value = protowire.AppendString(value, tag)
	value = protowire.AppendTag(value, 2, protowire.Fixed32Type)
	value = protowire.AppendFixed32(value, math.Float32bits(float32(v)))
	summary := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), value)
	e.event(step, protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), summary))
}

// event writes a record with an Event that has the time, a step and another field.
func (e *eventFile) event(step int, field []byte) {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(time.Now().UnixNano())/1e9))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(step))
	b = append(b, field...)
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(b)))
	e.w.Write(length)
	e.w.Write(masked(length))
	e.w.Write(b)
	e.w.Write(masked(b))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func masked(b []byte) []byte {
	c := crc32.Checksum(b, castagnoli)
	return binary.LittleEndian.AppendUint32(nil, (c>>15|c<<17)+0xa282ead8)
}
