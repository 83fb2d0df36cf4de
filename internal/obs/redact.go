package obs

import "strings"

const redacted = "xxxxx"

// RedactURL returns a Redis URL (or host:port) that can be logged: the password
// and any query parameter that looks like a secret are replaced by xxxxx. It
// does not depend on the URL being valid, for it is invalid ones that end in
// error messages; in doubt it hides too much.
func RedactURL(s string) string {
	scheme, rest := "", s
	if i := strings.Index(s, "://"); i >= 0 {
		scheme, rest = s[:i+3], s[i+3:]
	}
	// The last @, because an unescaped password may hold one, and / ? # as well.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if user, _, ok := strings.Cut(rest[:at], ":"); ok {
			rest = user + ":" + redacted + rest[at:]
		}
	}
	path, query, ok := strings.Cut(rest, "?")
	if !ok {
		return scheme + rest
	}
	params := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	for i, p := range params {
		if key, _, ok := strings.Cut(p, "="); ok && secretKey(key) {
			params[i] = key + "=" + redacted
		}
	}
	return scheme + path + "?" + strings.Join(params, "&")
}

// secretKey reports whether a query parameter is not plainly harmless: a
// percent sign could spell anything.
func secretKey(key string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"pass", "secret", "token", "auth", "%"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}
