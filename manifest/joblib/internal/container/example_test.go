package container_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"galley/manifest/joblib/internal/container"
)

func ExampleOpen() {
	var file bytes.Buffer
	for _, pickle := range []string{"\x80\x04N.", "\x80\x04\x88."} {
		w := gzip.NewWriter(&file)
		io.WriteString(w, pickle)
		w.Close()
	}

	r := bufio.NewReader(&file)
	head, err := r.Peek(container.MaxPrefix)
	if err != nil && err != io.EOF {
		fmt.Println(err)
		return
	}
	z, err := container.Open(r, container.Detect(head), container.Limits{MaxOutput: 1 << 30})
	if err != nil {
		fmt.Println(err)
		return
	}
	pickle, err := io.ReadAll(z)
	fmt.Printf("%q %v\n", pickle, err)
	end, err := z.Finish()
	fmt.Println(end.Oddities[0].Detail, err)
	// Output:
	// "\x80\x04N." <nil>
	// a second gzip member behind the first gzip member <nil>
}
