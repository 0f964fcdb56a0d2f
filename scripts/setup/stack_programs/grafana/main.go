// Package main stands in for Grafana where its image cannot be pulled. It is not Grafana: it draws
// nothing. It reads the same provisioning files at the same places, ends if one of them is wrong,
// and answers three of Grafana's addresses:
//
//	GET /api/health
//	GET /api/dashboards/uid/UID
//	GET /api/datasources/proxy/uid/UID/…    passed on to the data source
package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	provisioning = "/etc/grafana/provisioning"
	notice       = "This stands in for Grafana, and draws nothing: the image could not be pulled.\n"
)

type dataSource struct {
	Name      string         `yaml:"name"`
	UID       string         `yaml:"uid"`
	Type      string         `yaml:"type"`
	Access    string         `yaml:"access"`
	URL       string         `yaml:"url"`
	IsDefault bool           `yaml:"isDefault"`
	Editable  bool           `yaml:"editable"`
	JSONData  map[string]any `yaml:"jsonData"`
}

type dataSources struct {
	APIVersion  int          `yaml:"apiVersion"`
	DataSources []dataSource `yaml:"datasources"`
}

type provider struct {
	Name                  string `yaml:"name"`
	Type                  string `yaml:"type"`
	Folder                string `yaml:"folder"`
	AllowUIUpdates        bool   `yaml:"allowUiUpdates"`
	DisableDeletion       bool   `yaml:"disableDeletion"`
	UpdateIntervalSeconds int    `yaml:"updateIntervalSeconds"`
	Options               struct {
		Path string `yaml:"path"`
	} `yaml:"options"`
}

type providers struct {
	APIVersion int        `yaml:"apiVersion"`
	Providers  []provider `yaml:"providers"`
}

type dashboard struct {
	UID    string           `json:"uid"`
	Title  string           `json:"title"`
	Panels []map[string]any `json:"panels"`
}

// decoded reads the files of one kind of provisioning; an unknown key is an error.
func decoded[T any](kind string) (found []T, err error) {
	files, err := filepath.Glob(filepath.Join(provisioning, kind, "*.y*ml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no %s in %s", kind, provisioning)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		decoder.KnownFields(true)
		var one T
		if err := decoder.Decode(&one); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, one)
	}
	return found, nil
}

// proxies has the address of each data source behind its UID.
func proxies() (map[string]*url.URL, error) {
	files, err := decoded[dataSources]("datasources")
	if err != nil {
		return nil, err
	}
	found := map[string]*url.URL{}
	for _, file := range files {
		for _, source := range file.DataSources {
			target, err := url.Parse(source.URL)
			if err != nil || target.Host == "" {
				return nil, fmt.Errorf("data source %q: no URL: %q", source.Name, source.URL)
			}
			if file.APIVersion != 1 || source.Name == "" || source.UID == "" || source.Access != "proxy" {
				return nil, fmt.Errorf("data source %q: expected apiVersion 1, name, uid, access proxy", source.Name)
			}
			if source.Type != "prometheus" {
				return nil, fmt.Errorf("data source %q: unknown type %q", source.Name, source.Type)
			}
			found[source.UID] = target
		}
	}
	return found, nil
}

// dashboards has the text of each dashboard behind its UID.
func dashboards() (map[string][]byte, error) {
	files, err := decoded[providers]("dashboards")
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, file := range files {
		for _, from := range file.Providers {
			if file.APIVersion != 1 || from.Name == "" || from.Type != "file" {
				return nil, fmt.Errorf("dashboard provider %q: expected apiVersion 1, name, type file", from.Name)
			}
			texts, err := filepath.Glob(filepath.Join(from.Options.Path, "*.json"))
			if err != nil || len(texts) == 0 {
				return nil, fmt.Errorf("dashboard provider %q: no dashboard in %q", from.Name, from.Options.Path)
			}
			for _, name := range texts {
				text, err := os.ReadFile(name)
				if err != nil {
					return nil, err
				}
				var one dashboard
				if err := json.Unmarshal(text, &one); err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				if one.UID == "" || one.Title == "" || len(one.Panels) == 0 {
					return nil, fmt.Errorf("%s: expected uid, title and panels", name)
				}
				found[one.UID] = text
			}
		}
	}
	return found, nil
}

// password is what the account admin logs in with. Grafana has a default; we have none.
func password() (string, error) {
	text, err := os.ReadFile(os.Getenv("GF_SECURITY_ADMIN_PASSWORD__FILE"))
	found := strings.TrimRight(string(text), "\n")
	if err == nil && found == "" {
		err = errors.New("the password is empty")
	}
	return found, err
}

func serve() error {
	sources, err := proxies()
	if err != nil {
		return err
	}
	boards, err := dashboards()
	if err != nil {
		return err
	}
	secret, err := password()
	if err != nil {
		return err
	}
	inside := func(handler http.HandlerFunc) http.HandlerFunc {
		return func(answer http.ResponseWriter, request *http.Request) {
			user, given, _ := request.BasicAuth()
			if user != "admin" || subtle.ConstantTimeCompare([]byte(given), []byte(secret)) != 1 {
				http.Error(answer, "log in as admin", http.StatusUnauthorized)
				return
			}
			handler(answer, request)
		}
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(answer, notice)
	})
	routes.HandleFunc("GET /api/health", func(answer http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(answer).Encode(map[string]string{"database": "ok", "version": "stand-in"})
	})
	routes.HandleFunc("GET /api/dashboards/uid/{uid}", inside(
		func(answer http.ResponseWriter, request *http.Request) {
			text, known := boards[request.PathValue("uid")]
			if !known {
				http.NotFound(answer, request)
				return
			}
			fmt.Fprintf(answer, `{"meta": {"provisioned": true}, "dashboard": %s}`, text)
		}))
	routes.HandleFunc("GET /api/datasources/proxy/uid/{uid}/{rest...}", inside(
		func(answer http.ResponseWriter, request *http.Request) {
			target, known := sources[request.PathValue("uid")]
			if !known {
				http.NotFound(answer, request)
				return
			}
			(&httputil.ReverseProxy{Rewrite: func(passed *httputil.ProxyRequest) {
				passed.Out.URL.Path = "/" + request.PathValue("rest")
				passed.SetURL(target)
				passed.Out.Header.Del("Authorization")
			}}).ServeHTTP(answer, request)
		}))
	log.Print(notice)
	return http.ListenAndServe(":3000", routes)
}

func main() {
	log.Fatal(serve())
}
