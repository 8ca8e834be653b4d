// Package pki makes and reads the keys and certificates of the daemon. Clients
// identify a server by the fingerprint of its self-signed certificate, as in
// LXD, so no authority is involved.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/croft-project/croft/api"
)

// The files of a server's identity in its state directory.
const (
	CertFile = "server.crt"
	KeyFile  = "server.key"
)

// validity is how long a new certificate is good for: clients pin it, so it is
// replaced by hand, not by time.
const validity = 10 * 365 * 24 * time.Hour

// Identity is a key with its certificate.
type Identity struct {
	TLS         tls.Certificate
	PEM         string // the certificate
	Fingerprint string // SHA-256 of the certificate's DER form, in hexadecimal
}

// LoadOrCreate reads the identity kept in dir, or makes one for the host name
// and keeps it there, the key readable by its owner alone.
//
// A crash between the two files leaves a key without certificate, which nobody
// can have trusted yet: both are made again. Errors: Internal for files that
// cannot be read or do not belong together.
func LoadOrCreate(dir, hostname string, now time.Time) (*Identity, error) {
	cert, err := os.ReadFile(filepath.Join(dir, CertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, hostname, now)
	}
	if err != nil {
		return nil, fmt.Errorf("read server certificate: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, api.Errorf(api.Internal, "read the key of the server certificate: %w", err).
			WithHint("restore %s, or remove %s to get a new identity", filepath.Join(dir, KeyFile), filepath.Join(dir, CertFile))
	}
	return parse(cert, key)
}

func parse(cert, key []byte) (*Identity, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, api.Errorf(api.Internal, "server certificate: %w", err)
	}
	return &Identity{TLS: pair, PEM: string(cert), Fingerprint: Fingerprint(pair.Certificate[0])}, nil
}

// Fingerprint is how clients name a certificate: the SHA-256 of its DER form in
// lower-case hexadecimal.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func create(dir, hostname string, now time.Time) (*Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	der, err := selfSign(key, hostname, now)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode server key: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	if err := writeFile(filepath.Join(dir, KeyFile), keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("keep server key: %w", err)
	}
	if err := writeFile(filepath.Join(dir, CertFile), certPEM, 0o644); err != nil {
		return nil, fmt.Errorf("keep server certificate: %w", err)
	}
	return parse(certPEM, keyPEM)
}

func selfSign(key *ecdsa.PrivateKey, hostname string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	tpl := x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Croft"}, CommonName: "root@" + hostname},
		NotBefore:    now.Add(-time.Hour), // clocks of clients may be a little behind
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{hostname},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, &tpl, &tpl, &key.PublicKey, key)
}

// writeFile replaces a file durably: it is there as a whole or not at all.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has been renamed
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
