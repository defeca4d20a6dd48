<?php
// The body of the page: what does not change. The script fills it in from what the bridge answers.
?>
<link type="text/css" rel="stylesheet" href="<?php autov('/webGui/styles/jquery.filetree.css'); ?>">
<link type="text/css" rel="stylesheet" href="<?php autov('/plugins/vm-babysitter/css/page.css'); ?>">
<script src="<?php autov('/webGui/javascript/jquery.filetree.js'); ?>"></script>

<div id="vmb"<?php if (in_array($theme ?? '', ['black', 'gray'], true)) { echo ' class="vmb-dark"'; } ?> data-bridge="/plugins/vm-babysitter/include/api.php">
  <noscript>This page needs JavaScript. On a terminal, "vm-babysitter status" says the same.</noscript>

  <section class="vmb-top" aria-live="polite">
    <p class="vmb-sentence"><i class="fa fa-circle-o-notch fa-spin" aria-hidden="true"></i> Asking the daemon…</p>
    <ul class="vmb-todo"></ul>
  </section>

  <section class="vmb-down" hidden>
    <p>What the daemon needs:</p>
    <ul class="vmb-checks"></ul>
    <pre class="vmb-words" hidden></pre>
    <p>
      <button type="button" class="vmb-start">Start it</button>
      <button type="button" class="vmb-again">Check again</button>
      <span class="vmb-said" role="status"></span>
    </p>
    <p>Backups, settings and VMs are as they were. More is in the system log: Tools, System Log.</p>
  </section>

  <section class="vmb-up vmb-vms" hidden>
    <h3>VMs</h3>
    <table>
      <thead>
        <tr><th>VM</th><th>State</th><th>Last good point</th><th>Backups</th><th></th></tr>
      </thead>
      <tbody></tbody>
    </table>
  </section>

  <section class="vmb-up vmb-settings" hidden>
    <h3>Settings</h3>
    <p class="vmb-unread red-text" role="alert"></p>
    <form autocomplete="off" onsubmit="return false">
      <div class="vmb-field" data-path="store.path">
        <label for="vmb-store">Backup folder</label>
        <div>
          <input type="text" id="vmb-store" spellcheck="false" placeholder="/mnt/user/backups/vms"
            data-pickroot="/mnt" data-pickfolders="true" data-pickfilter="HIDE_FILES_FILTER" data-pickcloseonfile="true">
          <p class="vmb-help">A folder on the array, a pool, or a disk of Unassigned Devices. It has to exist, and to be
            empty or a backup folder already. Best on other disks than the VMs' own.</p>
          <p class="vmb-wrong red-text" role="alert"></p>
        </div>
      </div>
      <div class="vmb-field" data-path="schedules">
        <label for="vmb-often">Back up</label>
        <div>
          <span class="vmb-when">
            <select id="vmb-often">
              <option value="never">not by itself</option>
              <option value="day">every day</option>
              <option value="week">every week</option>
              <option value="cron">at other times</option>
            </select>
            <select id="vmb-weekday" aria-label="Day of the week">
              <option value="1">on Monday</option>
              <option value="2">on Tuesday</option>
              <option value="3">on Wednesday</option>
              <option value="4">on Thursday</option>
              <option value="5">on Friday</option>
              <option value="6">on Saturday</option>
              <option value="0">on Sunday</option>
            </select>
            <span class="vmb-at">at <input type="time" id="vmb-time" value="02:00" required aria-label="Time"></span>
            <input type="text" id="vmb-cron" spellcheck="false" placeholder="30 2 * * *" aria-label="Time as cron has it">
          </span>
          <p class="vmb-help vmb-next"></p>
          <p class="vmb-wrong red-text" role="alert"></p>
        </div>
      </div>
      <div class="vmb-field">
        <span></span>
        <div>
          <button type="button" class="vmb-apply" disabled>Apply</button>
          <button type="button" class="vmb-undo" disabled>Undo</button>
          <span class="vmb-said" role="status"></span>
          <p class="vmb-wrong vmb-other red-text" role="alert"></p>
        </div>
      </div>
    </form>
  </section>

  <section class="vmb-up vmb-system" hidden>
    <details>
      <summary>Self-check: <span class="vmb-summary"></span></summary>
      <ul class="vmb-checks"></ul>
    </details>
    <p class="vmb-help vmb-version"></p>
  </section>
</div>
<script src="<?php autov('/plugins/vm-babysitter/js/common.js'); ?>"></script>
<script src="<?php autov('/plugins/vm-babysitter/js/settings.js'); ?>"></script>
<script src="<?php autov('/plugins/vm-babysitter/js/page.js'); ?>"></script>
