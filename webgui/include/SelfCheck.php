<?php
declare(strict_types=1);

namespace VmBabysitter;

/**
 * Why the daemon does not run, told without it: a page has something to say whatever is broken.
 *
 * Each finding is {name, state (ok, waits, warning, failed), text, hint}, as the daemon's own parts are.
 */
final class SelfCheck
{
    private const SECONDS = 15;
    private const START_SECONDS = 60;

    private readonly string $plugin;
    private readonly string $program;
    private readonly string $rc;
    private readonly string $settings;
    private readonly string $runtime;

    /** $root is where the server's file system begins. */
    public function __construct(private readonly string $root)
    {
        $this->plugin = "$root/usr/local/emhttp/plugins/vm-babysitter";
        $this->program = "$root/usr/local/sbin/vm-babysitter";
        $this->rc = "$root/etc/rc.d/rc.vm-babysitter";
        $this->settings = "$root/boot/config/plugins/vm-babysitter/settings.json";
        $this->runtime = "$root/run/vm-babysitter";
    }

    /** @return array<string, mixed> */
    public function document(): array
    {
        [$code] = $this->run([$this->rc, 'status'], self::SECONDS);
        return ['running' => $code === 0, 'checks' => $this->checks(), 'last_words' => $this->lastWords()];
    }

    /**
     * Start the daemon, and say what became of it.
     *
     * @return array<string, mixed>
     */
    public function start(): array
    {
        [$code, $said] = $this->run([$this->rc, 'start'], self::START_SECONDS);
        return ['started' => $code === 0, 'said' => trim($said)];
    }

    /** @return list<array{name: string, state: string, text: string, hint: string}> */
    private function checks(): array
    {
        $state = $this->state();
        $found = [
            'python' => $this->python($state === null ? '' : $state[0]),
            'libvirt' => $this->libvirt(),
            'socket' => $this->socketFolder(),
            'state' => $state === null ? self::failed('state', 'It cannot be told where journal and logs go.') : $state[1],
            'settings' => $this->flash(),
        ];
        return array_values($found);
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private static function finding(string $name, string $state, string $text, string $hint = ''): array
    {
        return ['name' => $name, 'state' => $state, 'text' => $text, 'hint' => $hint];
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private static function failed(string $name, string $text, string $hint = ''): array
    {
        return self::finding($name, 'failed', $text, $hint);
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private function python(string $state): array
    {
        $again = 'Install the plugin again. If that does not help, this Unraid needs another version of it.';
        if (!is_executable($this->program)) {
            return self::failed('python', 'The program is not there: the plugin is not installed completely.', $again);
        }
        $command = [$this->program, 'self-check', '--json', '--settings', $this->settings];
        [$code, $said] = $this->run([...$command, ...($state === '' ? [] : ['--state', $state])], self::SECONDS);
        $parts = json_decode($said, true);
        foreach (is_array($parts) ? $parts : [] as $part) {
            if (is_array($part) && ($part['name'] ?? '') === 'python') {
                return self::finding(
                    'python',
                    (string) ($part['state'] ?? 'failed'),
                    (string) ($part['text'] ?? ''),
                    (string) ($part['hint'] ?? '')
                );
            }
        }
        $lines = array_filter(array_map('trim', explode("\n", $said)));
        $why = $code === 124 ? 'it does not answer' : (end($lines) ?: "it ended with $code");
        return self::failed('python', "The program does not start: $why.", $again);
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private function libvirt(): array
    {
        $path = "$this->root/run/libvirt/libvirt-sock";
        $connection = @stream_socket_client("unix://$path", $number, $error, 2.0);
        if ($connection !== false) {
            fclose($connection);
            return self::finding('libvirt', 'ok', 'The VM service answers.');
        }
        $configuration = (string) @file_get_contents("$this->root/boot/config/domain.cfg");
        if (str_contains($configuration, 'SERVICE="disable"')) {
            $text = 'The VM service is switched off, so no VM can be backed up.';
            return self::finding('libvirt', 'waits', $text, 'Switch it on: Settings, VM Manager.');
        }
        return self::finding('libvirt', 'waits', 'The VM service does not run yet; backups wait for it.');
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private function socketFolder(): array
    {
        $folder = is_dir($this->runtime) ? $this->runtime : dirname($this->runtime);
        if (is_dir($folder) && is_writable($folder) && !is_file($this->runtime)) {
            return self::finding('socket', 'ok', 'Pages can reach the daemon.');
        }
        return self::failed('socket', "Nothing can be put into $folder, where pages reach the daemon.", 'Restart the server.');
    }

    /**
     * The folder of journal and logs, empty if there is none, and what is found of it.
     *
     * @return array{string, array{name: string, state: string, text: string, hint: string}}|null
     */
    private function state(): ?array
    {
        [$code, $said] = $this->run(["$this->plugin/scripts/state-folder"], self::SECONDS);
        $said = trim($said);
        if ($code === 0) {
            $parent = is_dir($said) ? $said : dirname($said);
            if (is_writable($parent)) {
                return [$said, self::finding('state', 'ok', "Journal and logs are kept in $said.")];
            }
            $text = "Nothing can be written to $parent, where journal and logs are kept.";
            return [$said, self::failed('state', $text, 'Look at its disk: Main.')];
        }
        return $said === '' ? null : ['', self::failed('state', $said)];
    }

    /** @return array{name: string, state: string, text: string, hint: string} */
    private function flash(): array
    {
        $folder = dirname($this->settings);
        while (!is_dir($folder)) {
            $folder = dirname($folder);
        }
        if (is_writable($folder)) {
            return self::finding('settings', 'ok', 'Settings can be saved.');
        }
        $hint = 'The flash drive may be failing. Make a copy of it, and replace it.';
        return self::finding('settings', 'warning', "Nothing can be written to $folder: settings are not kept.", $hint);
    }

    /** What a daemon that died has printed last. */
    private function lastWords(): string
    {
        $text = (string) @file_get_contents("$this->runtime/daemon.out", false, null, 0, 65536);
        return implode("\n", array_slice(array_filter(explode("\n", $text)), -3));
    }

    /**
     * Run a program, without a shell.
     *
     * @param list<string> $command
     * @return array{int, string} its exit code (124: it took too long) and what it said
     */
    private function run(array $command, int $seconds): array
    {
        $out = tmpfile();
        if ($out === false || !is_executable($command[0])) {
            return [127, ''];
        }
        $streams = [['file', '/dev/null', 'r'], $out, $out];
        $process = proc_open(['timeout', '-k', '2', (string) $seconds, ...$command], $streams, $pipes, '/');
        if ($process === false) {
            return [127, ''];
        }
        $code = proc_close($process);
        rewind($out);
        $said = (string) stream_get_contents($out, 65536);
        fclose($out);
        return [$code, $said];
    }
}
