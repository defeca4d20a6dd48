<?php
declare(strict_types=1);

// What pages of VM Babysitter ask for, passed on to its daemon. See Bridge.

namespace VmBabysitter;

require_once __DIR__ . '/Bridge.php';
require_once __DIR__ . '/SelfCheck.php';

$root = (string) getenv('VMB_ROOT'); // tests put another place there; a client cannot
$bridge = new Bridge("$root/run/vm-babysitter/api/api.socket", new SelfCheck($root));
$answer = $bridge->serve((string) ($_SERVER['REQUEST_METHOD'] ?? ''), $_POST);

http_response_code($answer->status);
header('Content-Type: application/json; charset=utf-8');
header('X-Content-Type-Options: nosniff');
header('Cache-Control: no-store');
if ($answer->status === 405) {
    header('Allow: POST');
}
echo $answer->body;
