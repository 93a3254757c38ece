package manifest

import (
	"cmp"
	"context"
	"path"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"galley/manifest/training"
)

// Facts is what is known of one model, read from its files and not from what
// annotations claim. Gates judge it, and two of them can be compared.
type Facts struct {
	// Info is what the manifest tells; of files that were never packed, what
	// packing them would. What the manifest of another tool does not tell is
	// filled in from the files that were read.
	Info Info
	// Digest is the artifact's; "" for what was never packed. Of an image it is
	// the digest of the artifact that was baked into it.
	Digest digest.Digest
	// Path is where the model's file lies and Size its bytes; "" and -1 where
	// that is unknown.
	Path string
	Size int64
	// FileDigest is the SHA-256 of the model's file; "" where that is unknown.
	FileDigest digest.Digest
	// Summary and Features are the JSON files; nil where there is none.
	Summary  *training.Summary
	Features *training.Features
	// Scans are what is in the files, but for the two JSON files, in the order
	// of paths; nil if they were not read, which costs the model's bytes.
	Scans []Scan
}

// Facts returns what the manifest alone tells. [Facts.AddJSON] and
// [Facts.AddScans] add what is in the files.
func (a *Artifact) Facts() *Facts {
	f := &Facts{Info: a.Info(), Digest: a.Root.Digest, Size: -1}
	for file := range a.Files() {
		if f.AddModel(file); f.Path != "" {
			break
		}
	}
	if f.FileDigest == "" {
		f.FileDigest = digest.NewDigestFromEncoded(digest.SHA256, a.Manifest.Annotations[AnnotationModelDigest])
		if f.FileDigest.Validate() != nil {
			f.FileDigest = ""
		}
	}
	if f.Size < 0 {
		f.Size = int64(count(a.Manifest.Annotations[AnnotationModelSize], -1))
	}
	return f
}

// AddModel notes which file the model is, or what is new of it. It does nothing
// for a file that is none, or if another is the model.
func (f *Facts) AddModel(file File) {
	if file.Role != RoleModel || f.Path != "" && f.Path != file.Path {
		return
	}
	f.Path = file.Path
	f.Size = max(f.Size, file.Size)
	f.FileDigest = cmp.Or(file.Digest, f.FileDigest)
}

// AddJSON reads the features or summary file at path, whichever the role says;
// featuresPath is that of [PackOptions]. The error is a [*FileError].
func (f *Facts) AddJSON(role Role, path string, data []byte, featuresPath string) (err error) {
	switch role {
	case RoleFeatures:
		f.Features, err = training.ParseFeatures(data, featuresPath)
	case RoleSummary:
		f.Summary, err = training.ParseSummary(data)
	}
	if err != nil {
		return &FileError{path, err}
	}
	if f.Info.Content != "" {
		return nil
	}
	if n := f.Features; n != nil && n.Names != nil {
		f.Info.Features, f.Info.FeaturesDigest = len(n.Names), n.Digest()
	}
	if s := f.Summary; s != nil {
		f.Info.Metrics, f.Info.Omitted = training.Select(s.Metrics, nil, maxMetrics)
		f.Info.Trained = cmp.Or(f.Info.Trained, s.Trained)
	}
	return nil
}

// AddScans takes in what was found in the files.
func (f *Facts) AddScans(scans []Scan) {
	f.Scans = scans
	if f.Info.Content != "" {
		return
	}
	from := facts{scans: scans}
	for _, s := range scans {
		if s.Role == RoleModel && from.report == nil {
			from.look(s.Report)
		}
	}
	if from.report == nil {
		return
	}
	a := map[string]string{AnnotationModelClass: from.class()}
	from.describeModel(a)
	i := (&Artifact{Manifest: v1.Manifest{Annotations: a}}).Info()
	f.Info.Class, f.Info.Steps, f.Info.Sklearn = i.Class, i.Steps, i.Sklearn
	f.Info.Numpy, f.Info.Joblib, f.Info.Imports, f.Info.Scan = i.Numpy, i.Joblib, i.Imports, i.Scan
}

// Facts returns what is known of the packed model. Its digest is that of the
// artifact, which is nowhere yet unless it was pushed.
func (p *Packed) Facts() *Facts {
	f := p.Artifact.Facts()
	f.Features, f.Summary, f.Scans = p.features, p.summary, []Scan{}
	read := map[Role]bool{}
	for _, s := range p.Scans {
		if s.Role.IsJSON() && !read[s.Role] {
			read[s.Role] = true
			continue
		}
		f.Scans = append(f.Scans, s)
	}
	return f
}

// FileFacts reads one file alone. Without a role it is a model, or if its name
// ends in .json one of the two JSON files: which one, its name says, or else
// whether there is a list of names in it. Errors are those of [Pack].
func FileFacts(ctx context.Context, in Input, o PackOptions) (*Facts, error) {
	if in.Role == "" && path.Ext(in.Path) != ".json" {
		in.Role = RoleModel
	}
	if in.Role == "" {
		if in.Role = roleOf("", in.Path); !in.Role.IsJSON() {
			in.Role = RoleFeatures
			p, err := Pack(ctx, []Input{in}, o)
			if err != nil {
				return nil, err
			}
			if p.features.Names == nil {
				in.Role = RoleSummary
			}
		}
	}
	p, err := Pack(ctx, []Input{in}, o)
	if err != nil {
		return nil, err
	}
	f := p.Facts()
	// These are about the whole of an artifact.
	f.Digest, f.Info.Content, f.Path = "", "", ""
	return f, nil
}
