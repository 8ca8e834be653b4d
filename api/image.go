package api

import "time"

// ImagePut is the part of an image that a client may write.
type ImagePut struct {
	AutoUpdate bool              `json:"auto_update" yaml:"auto_update"`
	Properties map[string]string `json:"properties" yaml:"properties"`
	Public     bool              `json:"public" yaml:"public"`
	ExpiresAt  time.Time         `json:"expires_at" yaml:"expires_at"`
	Profiles   []string          `json:"profiles" yaml:"profiles"`
}

// Image is an image as the API shows it.
type Image struct {
	ImagePut `yaml:",inline"`

	Aliases      []ImageAlias `json:"aliases" yaml:"aliases"`
	Architecture string       `json:"architecture" yaml:"architecture"`
	Cached       bool         `json:"cached" yaml:"cached"`
	Filename     string       `json:"filename" yaml:"filename"`
	Fingerprint  string       `json:"fingerprint" yaml:"fingerprint"` // SHA-256 of the image's files, in hexadecimal
	Size         int64        `json:"size" yaml:"size"`               // bytes of the image's files
	UpdateSource *ImageSource `json:"update_source,omitempty" yaml:"update_source,omitempty"`
	Type         string       `json:"type" yaml:"type"`

	CreatedAt  time.Time `json:"created_at" yaml:"created_at"`
	LastUsedAt time.Time `json:"last_used_at" yaml:"last_used_at"`
	UploadedAt time.Time `json:"uploaded_at" yaml:"uploaded_at"`
}

// ImageAlias is a name of an image, shown with the image.
type ImageAlias struct {
	Name        string `json:"name" yaml:"name"`
	Description string `json:"description" yaml:"description"`
}

// ImageSource is where an image came from and is updated from.
type ImageSource struct {
	Alias       string `json:"alias" yaml:"alias"`
	Certificate string `json:"certificate" yaml:"certificate"`
	Protocol    string `json:"protocol" yaml:"protocol"`
	Server      string `json:"server" yaml:"server"`
	ImageType   string `json:"image_type" yaml:"image_type"`
}

// ImagesPost creates an image from something other than an upload.
type ImagesPost struct {
	ImagePut

	Filename             string            `json:"filename"`
	Source               *ImagesPostSource `json:"source"`
	CompressionAlgorithm string            `json:"compression_algorithm"`
	Aliases              []ImageAlias      `json:"aliases"`
}

// ImagesPostSource says what a new image is made from.
type ImagesPostSource struct {
	ImageSource

	Mode        string `json:"mode"`
	Type        string `json:"type"` // image, instance, snapshot, url; build is ours
	URL         string `json:"url"`
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
	Secret      string `json:"secret"`
	Project     string `json:"project"`

	Distribution string `json:"distribution,omitempty"` // ours, for type build: debian/12, busybox, ...
	Mirror       string `json:"mirror,omitempty"`       // ours, for type build: package mirror; empty uses the host's
}

// ImageAliasesEntryPut is the part of an alias that a client may write.
type ImageAliasesEntryPut struct {
	Description string `json:"description" yaml:"description"`
	Target      string `json:"target" yaml:"target"`
}

// ImageAliasesEntryPost renames an alias.
type ImageAliasesEntryPost struct {
	Name string `json:"name" yaml:"name"`
}

// ImageAliasesEntry is an alias as the API shows it.
type ImageAliasesEntry struct {
	ImageAliasesEntryPut `yaml:",inline"`

	Name string `json:"name" yaml:"name"`
	Type string `json:"type" yaml:"type"`
}

// ImageAliasesPost creates an alias.
type ImageAliasesPost struct {
	ImageAliasesEntry
}

// ImageMetadata is the metadata.yaml of an image.
type ImageMetadata struct {
	Architecture string                            `json:"architecture" yaml:"architecture"`
	CreationDate int64                             `json:"creation_date" yaml:"creation_date"` // Unix seconds
	ExpiryDate   int64                             `json:"expiry_date" yaml:"expiry_date"`     // Unix seconds; 0 for never
	Properties   map[string]string                 `json:"properties" yaml:"properties"`
	Templates    map[string]*ImageMetadataTemplate `json:"templates" yaml:"templates"` // by the path they write
}

// ImageMetadataTemplate is one file template of an image.
type ImageMetadataTemplate struct {
	When       []string          `json:"when" yaml:"when"` // create, copy, rename, start
	CreateOnly bool              `json:"create_only" yaml:"create_only"`
	Template   string            `json:"template" yaml:"template"`
	Properties map[string]string `json:"properties" yaml:"properties"`
}
