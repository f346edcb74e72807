package train

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestMaskedChecksum checks TFRecord's checksum: CRC-32C, rotated by 15 bits, plus a
// constant.
func TestMaskedChecksum(t *testing.T) {
	crc := uint32(0xE3069283) // of "123456789", from the standard (RFC 3720)
	want := crc>>15 | crc<<17
	want += 0xa282ead8
	if have := binary.LittleEndian.Uint32(masked([]byte("123456789"))); have != want {
		t.Errorf("got %x, want %x", have, want)
	}
}

// TestEventFile reads an event file back record by record. (TensorBoard itself reads these
// files, and discards the steps that a resumed training repeated.)
func TestEventFile(t *testing.T) {
	dir := t.TempDir()
	m, err := openMetrics(dir, 6)
	if err != nil {
		t.Fatal(err)
	}
	m.add(7, 1, Losses{{"loss", 0.5}})
	m.close()
	files, _ := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if len(files) != 1 {
		t.Fatalf("files %v", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var events [][]byte
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		if binary.LittleEndian.Uint32(b[8:]) != binary.LittleEndian.Uint32(masked(b[:8])) ||
			binary.LittleEndian.Uint32(b[12+n:]) != binary.LittleEndian.Uint32(masked(b[12:12+n])) {
			t.Fatal("a checksum is wrong")
		}
		events, b = append(events, b[12:12+n]), b[16+n:]
	}
	if len(events) != 3 { // version, session, loss
		t.Fatalf("%d events", len(events))
	}
	field := func(b []byte, number protowire.Number) []byte {
		for len(b) > 0 {
			n, kind, size := protowire.ConsumeTag(b)
			rest := b[size:]
			length := protowire.ConsumeFieldValue(n, kind, rest)
			if length < 0 {
				t.Fatal(protowire.ParseError(length))
			}
			if n == number {
				if kind == protowire.BytesType {
					v, _ := protowire.ConsumeBytes(rest)
					return v
				}
				return rest[:length]
			}
			b = rest[length:]
		}
		return nil
	}
	if v := field(events[0], 3); string(v) != "brain.Event:2" {
		t.Errorf("version %q", v)
	}
	if step, _ := protowire.ConsumeVarint(field(events[1], 2)); step != 7 || field(events[1], 7) == nil {
		t.Errorf("the session begins at step %d", step)
	}
	value := field(field(events[2], 5), 1)
	loss := math.Float32frombits(binary.LittleEndian.Uint32(field(value, 2)))
	if string(field(value, 1)) != "loss" || loss != 0.5 {
		t.Errorf("%q is %g", field(value, 1), loss)
	}
}
