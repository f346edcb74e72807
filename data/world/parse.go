package world

import (
	"fmt"
	"slices"
	"strings"
)

// A Photo is what a photo shows: the "world" entry of its image in a captions file.
type Photo struct {
	Objects    []Group    `json:"objects"`
	Others     []Group    `json:"others,omitempty"` // less important objects, which captions hardly mention
	Relation   Relation   `json:"relation"`         // of the first object to the second
	Side       Side       `json:"side"`             // position of the first object, "" if undefined
	Background Background `json:"background"`
	Light      Light      `json:"light"`
	HeldOut    []string   `json:"held_out"`
}

// Photo returns what the captions files say about a scene.
func (s Scene) Photo() Photo {
	return Photo{Objects: s.Groups, Relation: s.Relation, Side: s.Where, Background: s.Background, Light: s.Light, HeldOut: s.HeldOut()}
}

// parse returns the value that has a name.
func parse[T ~uint8](what string, names []string, text []byte, to *T) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("world: unknown %s %q; must be one of: %s", what, text, strings.Join(names, ", "))
	}
	*to = T(i)
	return nil
}

// UnmarshalText implements encoding.TextUnmarshaler, as do the methods below.
func (k *Kind) UnmarshalText(text []byte) error {
	names := make([]string, kindCount)
	for i := range names {
		names[i] = Kind(i).String()
	}
	return parse("kind", names, text, k)
}

func (c *Colour) UnmarshalText(text []byte) error  { return parse("colour", colourNames, text, c) }
func (t *Texture) UnmarshalText(text []byte) error { return parse("texture", textureNames, text, t) }
func (s *Size) UnmarshalText(text []byte) error    { return parse("size", sizeNames, text, s) }
func (b *Background) UnmarshalText(text []byte) error {
	return parse("background", backgroundNames, text, b)
}
func (l *Light) UnmarshalText(text []byte) error    { return parse("light", lightNames, text, l) }
func (r *Relation) UnmarshalText(text []byte) error { return parse("relation", relationNames, text, r) }
func (s *Subject) UnmarshalText(text []byte) error  { return parse("subject", subjectNames, text, s) }
func (s *Side) UnmarshalText(text []byte) error     { return parse("side", sideNames, text, s) }
