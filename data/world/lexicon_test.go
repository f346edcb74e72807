package world

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// said counts the words of a caption that claim something, by the tables that the test of
// the captions has of its own.
func said(caption string) (objects, colours, textures int) {
	words := strings.Fields(strings.ToLower(strings.NewReplacer(".", "", ",", " ").Replace(caption)))
	for _, w := range words {
		if _, ok := kindOf[w]; ok {
			objects++
		}
		if _, ok := colourO[w]; ok {
			colours++
		}
		if _, ok := textOf[w]; ok {
			textures++
		}
	}
	return
}

func count(claims []Claim, s Subject) (n int) {
	for _, c := range claims {
		if c.Subject == s {
			n++
		}
	}
	return n
}

// Everything that a caption of the grammar says about its own photo is right, and all of
// it is found.
func TestClaimsOfTrueCaptions(t *testing.T) {
	total := map[Subject]int{}
	photos := append(samples(Val, 1500), samples(Train, 500)...)
	for _, s := range photos {
		p := s.Photo()
		for _, text := range s.Captions(source(s.Seed), 5) {
			claims := p.Claims(text)
			for _, c := range claims {
				total[c.Subject]++
				if !c.Right || c.Absent {
					t.Errorf("%q: %s %q is wrong: %+v", text, c.Subject, text[c.Start:c.End], p)
				}
			}
			objects, colours, textures := said(text)
			if count(claims, Objects) != objects || count(claims, Colours) != colours || count(claims, Textures) != textures {
				t.Errorf("%q has %d objects, %d colours and %d textures; found %+v", text, objects, colours, textures, claims)
			}
			if n := count(claims, Numbers); n != objects {
				t.Errorf("%q: %d numbers of %d objects", text, n, objects)
			}
			place := slices.ContainsFunc(strings.Fields(strings.Trim(strings.ToLower(text), ".")), func(w string) bool { _, ok := backOf[w]; return ok })
			if n := count(claims, Places); place && n == 0 || n > 2 {
				t.Errorf("%q: %d places", text, n)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, s := range Subjects {
		if total[s] < 500 {
			t.Errorf("%d claims about %s", total[s], s)
		}
	}
	t.Log(total)
}

// A caption of another photo is wrong about each thing in which the photos differ.
func TestClaimsOfFalseCaptions(t *testing.T) {
	other := func(v, n uint8) uint8 { return (v + 1) % n }
	changes := map[Subject]func(*Photo){
		Objects: func(p *Photo) {
			used := slices.Clone(p.Objects)
			for i, k := range []Kind{Ball, Ball, Ball}[:len(used)] {
				for slices.ContainsFunc(used, func(g Group) bool { return g.Kind == k }) {
					k++
				}
				p.Objects[i].Kind = k
				used = append(used, p.Objects[i])
			}
		},
		Colours: func(p *Photo) {
			for i := range p.Objects {
				p.Objects[i].Colour = Colour(other(uint8(p.Objects[i].Colour), uint8(colourCount)))
			}
		},
		Numbers: func(p *Photo) {
			for i, g := range p.Objects {
				p.Objects[i].Count = []int{1, 3, 1, 2, 2}[g.Count]
			}
		},
		Textures: func(p *Photo) {
			for i := range p.Objects {
				p.Objects[i].Texture = Texture(other(uint8(p.Objects[i].Texture), 4))
			}
		},
		Sizes: func(p *Photo) {
			for i := range p.Objects {
				p.Objects[i].Size = Size(other(uint8(p.Objects[i].Size), 3))
			}
		},
		Lights: func(p *Photo) { p.Light = Light(other(uint8(p.Light), 5)) },
		Sides:  func(p *Photo) { p.Side = [...]Side{Middle, Right, Left, Left}[p.Side] },
		Relations: func(p *Photo) {
			p.Relation = [relationCount]Relation{Alone, InFrontOf, NextTo, InFrontOf, InFrontOf, InFrontOf}[p.Relation]
		},
	}
	for _, s := range samples(Val, 600) {
		s.Others = nil // claims about them do not depend on the objects
		true := s.Photo()
		for _, text := range s.Captions(source(s.Seed), 5) {
			before := true.Claims(text)
			for subject, change := range changes {
				p := true
				p.Objects = slices.Clone(p.Objects)
				change(&p)
				after := p.Claims(text)
				if len(after) != len(before) {
					t.Fatalf("%q: %d claims of one photo and %d of another", text, len(before), len(after))
				}
				for i, c := range after {
					a, b := before[i], c
					switch {
					case a.Start != b.Start || a.End != b.End || a.Subject != b.Subject:
						t.Errorf("%q: %+v and %+v", text, a, b)
					case b.Subject != subject:
						// Nothing else is wrong, except what is said about an object that is not there.
						// Two of a kind can be next to each other, one cannot.
						// "to the left of" is a relation.
						if !b.Right && subject != Objects && !(b.Subject == Relations && (subject == Numbers || subject == Sides)) {
							t.Errorf("%q, other %s: %s %q is wrong", text, subject, b.Subject, text[b.Start:b.End])
						}
					case b.Right && !(subject == Relations && len(p.Objects) == 1 && p.Objects[0].Count > 1):
						t.Errorf("%q, other %s: %q is right", text, subject, text[b.Start:b.End])
					}
				}
			}
			// Some phrases are true of two backgrounds, none of all.
			for i := range before {
				if before[i].Subject != Places {
					continue
				}
				right := 0
				for b := range backgroundCount {
					p := true
					p.Background = b
					if p.Claims(text)[i].Right {
						right++
					}
				}
				if right < 1 || right > 2 {
					t.Errorf("%q: the place is right on %d backgrounds", text, right)
				}
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func TestClaims(t *testing.T) {
	cup := Group{Kind: Cup, Colour: Red, Texture: Striped, Size: Small, Count: 1}
	table := Group{Kind: Table, Colour: Brown, Count: 1, Size: Large}
	dogs := Group{Kind: Dog, Colour: Black, Count: 3}
	on := Photo{Objects: []Group{cup, table}, Relation: On, Background: Room}
	aside := Photo{Objects: []Group{cup, table}, Relation: NextTo, Side: Left, Background: Forest, Light: Sunset}
	three := Photo{Objects: []Group{dogs}, Side: Left, Background: Snow, Others: []Group{{Kind: Hat, Colour: Blue, Count: 1}}}
	for _, c := range []struct {
		photo   Photo
		caption string
		want    string // + right, - wrong
	}{
		{on, "A red striped cup on a brown table in a room.", "+A +red +striped +cup +on +a +brown +table +in a room"},
		{on, "a table with a small mug on top of it", "+a +table +a +small +mug +on top of it"},
		{on, "A table on a cup", "+A +table -on +a +cup"},
		{on, "A table under a cup", "+A +table +under +a +cup"},
		{on, "a cup next to the table", "+a +cup -next to +table"},
		{on, "A red bird can be seen on the right of a red bird", "-A -red -bird -on the right of -a -red -bird"},
		{on, "a cup on a cup", "+a +cup -on -a -cup"},
		{on, "a cup. the cup is red and blue", "+a +cup +red -blue"},
		{on, "a bird is red", "-a -bird -red"},
		{on, "a cup and the blue cup", "+a +cup -blue"},
		{on, "a red and blue cup", "+a +red -blue +cup"},
		{on, "a forest scene with a green tiny green tiny green tiny", "-a forest scene -green"},
		{on, "a large body of water with little light", "-a large body of water -with little light"},
		{on, "two of two cups", "-two +cups"},
		{on, "a pair of pair of cups", "+cups"},
		{aside, "a cup to the left of a table at sunset", "+a +cup +to the left of +a +table +at sunset"},
		{aside, "a table to the left of a cup in the sandy forest", "+a +table -to the left of +a +cup -sandy +forest"},
		{aside, "a table on the right side of the picture", "+a +table +on the right side of the picture"},
		{aside, "a cup in the middle of the woods", "+a +cup +in the middle of the woods"},
		{aside, "a cup and a table and a dog in a row", "+a +cup +a +table -a -dog -in a row"},
		{three, "Several black dogs together in the snow", "+Several +black +dogs +together +in the snow"},
		{three, "two dogs and a dog on the left", "-two +dogs -a -dog +on the left"},
		{three, "a group of dogs next to a blue hat", "+a group of +dogs +a +blue +hat"},
		{three, "snowy grassy field", "+snowy -grassy field"},
		{three, "", ""},
		{three, "it says nothing at all", ""},
	} {
		var got []string
		for _, x := range c.photo.Claims(c.caption) {
			sign := "-"
			if x.Right {
				sign = "+"
			}
			got = append(got, sign+c.caption[x.Start:x.End])
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.caption, s, c.want)
		}
	}
}

// Every word that stands for a place or light by itself is one of the grammar, and means
// little enough.
func TestLexicon(t *testing.T) {
	for _, w := range placeNouns {
		if n := len(lexicon().places.of[w]); n < 1 || n > 2 {
			t.Errorf("%s means %d backgrounds", w, n)
		}
	}
	for _, w := range lightNouns {
		if n := len(lexicon().lights.of[w]); n < 1 || n > 2 {
			t.Errorf("%s means %d lights", w, n)
		}
	}
	for w := range backOf {
		if lexicon().places.of[w] == nil {
			t.Errorf("%s means no place", w)
		}
	}
}

// What is written to a captions file can be read again.
func TestPhotoJSON(t *testing.T) {
	for _, s := range samples(Val, 200) {
		want, err := json.Marshal(s.Photo())
		if err != nil {
			t.Fatal(err)
		}
		var p Photo
		if err := json.Unmarshal(want, &p); err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(p); string(got) != string(want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	var p Photo
	err := json.Unmarshal([]byte(`{"background": "moon"}`), &p)
	if err == nil || !strings.Contains(err.Error(), `unknown background "moon"; must be one of: beach, meadow`) {
		t.Errorf("%v", err)
	}
}
