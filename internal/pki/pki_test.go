package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLoadOrCreate(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, err := LoadOrCreate(dir, "host1", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadOrCreate(dir, "other", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint != b.Fingerprint || a.PEM != b.PEM {
		t.Error("the second call made another identity")
	}
	if len(a.Fingerprint) != 64 {
		t.Errorf("fingerprint %q is not a SHA-256", a.Fingerprint)
	}
	key := a.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if key.Curve != elliptic.P384() {
		t.Errorf("curve %s, want P-384", key.Curve.Params().Name)
	}
	if leaf := a.TLS.Leaf; leaf.NotAfter.Before(now.AddDate(9, 0, 0)) || leaf.VerifyHostname("host1") != nil {
		t.Errorf("certificate is for %v until %s", leaf.DNSNames, leaf.NotAfter)
	}
	st, err := os.Stat(filepath.Join(dir, KeyFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", st.Mode(), err)
	}
}

func TestHalfMade(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	if _, err := LoadOrCreate(dir, "h", now); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, CertFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, "h", now); err != nil {
		t.Errorf("key without certificate: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, "h", now); err == nil {
		t.Error("a certificate whose key is gone was replaced silently")
	}
}
