<?php
declare(strict_types=1);

namespace VmBabysitter;

/** An answer: what the page gets. */
final class Answer
{
    public function __construct(public readonly int $status, public readonly string $body)
    {
    }

    /** @param array<string, mixed> $document */
    public static function of(int $status, array $document): self
    {
        $flags = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE;
        return new self($status, (string) json_encode($document, $flags));
    }

    /** An answer of the form that the daemon's problems have. */
    public static function problem(int $status, string $code, string $detail, string $hint = ''): self
    {
        return self::of($status, ['status' => $status, 'code' => $code, 'detail' => $detail, 'hint' => $hint]);
    }
}

/**
 * The way from web pages to the daemon's socket: only what is listed here passes.
 *
 * Who gets here is logged in, and has shown the webGUI's CSRF token: the webGUI sees to that for each
 * POST, and only POSTs are served.
 */
final class Bridge
{
    /** Method and path of what pages may ask for, below /api/v1. */
    private const ALLOWED = [
        ['GET', '#^/status$#D'],
        ['GET', '#^/system$#D'],
        ['GET', '#^/settings$#D'],
        ['GET', '#^/schedules$#D'],
        ['GET', '#^/jobs(\?limit=[1-9][0-9]{0,2})?$#D'],
        ['GET', '#^/jobs/[1-9][0-9]{0,17}(/progress)?$#D'],
        ['GET', '#^/jobs/[1-9][0-9]{0,17}/log(\?offset=[0-9]{1,15})?$#D'],
        ['POST', '#^/jobs$#D'],
        ['POST', '#^/jobs/[1-9][0-9]{0,17}/cancel$#D'],
        ['POST', '#^/settings$#D'],
        ['POST', '#^/settings/check$#D'],
    ];
    /** Kinds of jobs that pages may order: none that removes, restores or converts. */
    private const ORDERS = ['backup'];
    private const MOST_SENT = 256 * 1024;
    private const MOST_ANSWERED = 8 * 1024 * 1024;
    private const CONNECT_SECONDS = 3;
    private const SECONDS = ['GET' => 8, 'POST' => 30]; // each that waits keeps one of the web server's few

    public function __construct(private readonly string $socket, private readonly SelfCheck $check)
    {
    }

    /**
     * Serve a request.
     *
     * @param array<mixed> $fields method, path, body (JSON) and if_match, as they were posted
     */
    public function serve(string $verb, array $fields): Answer
    {
        if ($verb !== 'POST') {
            return Answer::problem(405, 'method-not-allowed', 'Only POST is served here.');
        }
        [$method, $path, $body, $match] = array_map(
            static fn(string $name): ?string => self::text($fields, $name),
            ['method', 'path', 'body', 'if_match']
        );
        if ($method === null || $path === null || $body === null || $match === null) {
            return Answer::problem(400, 'bad-request', 'Each field has to be one text.');
        }
        if (strlen($body) > self::MOST_SENT) {
            return Answer::problem(413, 'too-large', 'That is more than a page may send.');
        }
        if (!preg_match('#^("[A-Za-z0-9_.-]{1,128}")?$#D', $match)) {
            return Answer::problem(400, 'bad-request', 'if_match has to be a tag in quotes.');
        }
        if ($method === 'GET' && $path === '/self-check') {
            return Answer::of(200, $this->check->document());
        }
        if ($method === 'POST' && $path === '/daemon/start') {
            return Answer::of(200, $this->check->start());
        }
        if ($method === 'POST' && $path === '/jobs') {
            $order = json_decode($body);
            if (!is_object($order) || !in_array($order->kind ?? '', self::ORDERS, true)) {
                return Answer::problem(403, 'not-allowed', 'Pages may not order that.');
            }
            $body = (string) json_encode($order); // what was looked at, however it was written
        }
        if (!self::allowed($method, $path)) {
            return Answer::problem(403, 'not-allowed', 'Pages may not ask for that.');
        }
        return $this->ask($method, $path, $body, $match);
    }

    /** @param array<mixed> $fields */
    private static function text(array $fields, string $name): ?string
    {
        $value = $fields[$name] ?? '';
        return is_string($value) ? $value : null;
    }

    private static function allowed(string $method, string $path): bool
    {
        foreach (self::ALLOWED as [$verb, $pattern]) {
            if ($verb === $method && preg_match($pattern, $path)) {
                return true;
            }
        }
        return false;
    }

    private function ask(string $method, string $path, string $body, string $match): Answer
    {
        $found = '';
        $headers = ['Accept: application/json', 'Expect:'];
        if ($match !== '') {
            $headers[] = "If-Match: $match";
        }
        $curl = curl_init("http://localhost/api/v1$path");
        if ($curl === false) {
            return Answer::problem(500, 'no-curl', 'PHP cannot make a request.');
        }
        if ($method === 'POST') {
            $headers[] = 'Content-Type: application/json';
            curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
        }
        curl_setopt_array($curl, [
            CURLOPT_UNIX_SOCKET_PATH => $this->socket,
            CURLOPT_CUSTOMREQUEST => $method,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_PROXY => '',
            CURLOPT_NOPROXY => '*',
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_CONNECTTIMEOUT => self::CONNECT_SECONDS,
            CURLOPT_TIMEOUT => self::SECONDS[$method],
            CURLOPT_WRITEFUNCTION => static function ($curl, string $piece) use (&$found): int {
                $found .= $piece;
                return strlen($found) > self::MOST_ANSWERED ? 0 : strlen($piece);
            },
        ]);
        $done = curl_exec($curl);
        $error = curl_errno($curl);
        $status = (int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        unset($curl);
        if ($done === false || $status === 0) {
            return $this->unanswered($error, $found, self::SECONDS[$method]);
        }
        return new Answer($status, $found);
    }

    private function unanswered(int $error, string $found, int $seconds): Answer
    {
        if ($error === CURLE_OPERATION_TIMEOUTED) {
            $detail = "The daemon of VM Babysitter did not answer within $seconds seconds.";
            return Answer::problem(504, 'daemon-slow', $detail, 'Try again in a minute.');
        }
        if (strlen($found) > self::MOST_ANSWERED) {
            return Answer::problem(502, 'too-large', 'The answer of the daemon is too large for a page.');
        }
        return Answer::problem(
            502,
            'daemon-down',
            'The daemon of VM Babysitter does not run, so no VM is backed up.',
            'The self-check says why.'
        );
    }
}
