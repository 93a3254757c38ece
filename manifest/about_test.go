package manifest_test

import (
	"errors"
	"testing"
	"testing/fstest"

	"galley/manifest"
)

// TestFileFacts reads files alone; what JSON is, its name says or its content.
func TestFileFacts(t *testing.T) {
	fsys := fstest.MapFS{
		"m.joblib":      {Data: []byte("\x80\x04\x8c\x05hello\x94.")},
		"x.bin":         {Data: []byte("anything")},
		"features.json": {Data: []byte(`{"a": 1}`)},
		"columns.json":  {Data: []byte(`["amount"]`)},
		"metrics.json":  {Data: []byte(`{"f1": 0.5}`)},
		"report.json":   {Data: []byte(`{"f1": 0.5, "columns": []}`)},
		"broken.json":   {Data: []byte(`{`)},
	}
	for name, want := range map[string]manifest.Role{
		"m.joblib": manifest.RoleModel, "x.bin": manifest.RoleModel, "features.json": manifest.RoleFeatures,
		"columns.json": manifest.RoleFeatures, "metrics.json": manifest.RoleSummary, "report.json": manifest.RoleSummary,
	} {
		f, err := manifest.FileFacts(t.Context(), manifest.FromFS(fsys, name, name, ""), manifest.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		isModel := f.FileDigest != "" && f.Size == int64(len(fsys[name].Data)) && len(f.Scans) == 1
		if isModel != (want == manifest.RoleModel) || (f.Features != nil) != (want == manifest.RoleFeatures) || (f.Summary != nil) != (want == manifest.RoleSummary) {
			t.Errorf("%s: %+v; want a %s", name, f, want)
		}
		// One file tells nothing of the whole.
		if f.Digest != "" || f.Info.Content != "" || f.Path != "" {
			t.Errorf("%s: digest %q, content %q, path %q", name, f.Digest, f.Info.Content, f.Path)
		}
	}
	_, err := manifest.FileFacts(t.Context(), manifest.FromFS(fsys, "broken.json", "broken.json", ""), manifest.PackOptions{})
	if _, ok := errors.AsType[*manifest.FileError](err); !ok {
		t.Errorf("of broken JSON: %v", err)
	}
}
