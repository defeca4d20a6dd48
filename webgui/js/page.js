/* The page of VM Babysitter: the daemon, its VMs and its parts. */
(function () {
  'use strict';

  var vmb = window.VMBabysitter;
  var ask = vmb.ask, words = vmb.words, find = vmb.find, make = vmb.make, empty = vmb.empty;
  var draw = vmb.draw, show = vmb.show, moment = vmb.moment, checks = vmb.checks, sentence = vmb.sentence, icon = vmb.icon;
  var SOON = 2000;    // ms between two looks while something runs
  var LATER = 10000;  // and while nothing does
  var CHECKED = 30000; // between two self-checks: each starts a Python
  var START = 90000;   // the daemon is given to start
  var HEALTH = {good: 'green-text', repairable: 'orange-text', 'restore-only': 'orange-text', lost: 'red-text'};
  var STEPS = {
    'Looks at the disks': ['look', 'plan', 'measure', 'adopted'],
    'Prepares': ['mark', 'probe', 'save', 'begin', 'begun', 'freeze', 'frozen'],
    'Copies': ['copy'],
    'Completes the restore point': ['confirm', 'commit', 'committed', 'finish', 'ended', 'tidy', 'clean up', 'done'],
    'Undoes what was begun': ['roll back']
  };
  var refused = {};   // what was said to a button of a VM that was pressed in vain, by UUID
  var watched = {};   // UUIDs of VMs whose backup was asked for here
  var rows = {};      // what is shown of each VM: {said, row}; a row stays as long as it says the same
  var timer = null;
  var looking = false;
  var again = false;
  var checked = 0;    // when the last self-check was
  var hurry = 0;      // so many looks come soon, as its user waits for what comes of something

  // -- the daemon does not run -----------------------------------------------------------------------

  function advise(hint) {
    find('.vmb-top').setAttribute('aria-live', 'polite');
    draw(find('.vmb-todo'), ['advice', hint], function (list) {
      if (hint) list.appendChild(make('li', '', hint));
    });
  }

  function showDown(wrong) {
    if (wrong.code !== 'daemon-down' && wrong.code !== 'daemon-slow') { // what is shown stays
      sentence('fa-times-circle', 'red-text', wrong.detail);
      advise(wrong.hint);
      return Promise.resolve();
    }
    show('.vmb-up', false);
    if (Date.now() - checked < CHECKED) return Promise.resolve();
    sentence('fa-times-circle', 'red-text', wrong.detail);
    advise('');
    return ask('GET', '/self-check').then(function (found) {
      checked = Date.now();
      show('.vmb-down', true);
      checks(find('.vmb-down .vmb-checks'), found.checks);
      var printed = find('.vmb-words');
      printed.textContent = found.last_words;
      printed.hidden = !found.last_words;
      find('.vmb-start').disabled = found.running;
      if (found.running) {
        sentence('fa-clock-o', 'orange-text', 'The daemon of VM Babysitter runs and does not answer yet.');
        advise('If it stays so for some minutes, restart it: on a terminal, "/etc/rc.d/rc.vm-babysitter restart".');
      }
    }, function (other) { sentence('fa-times-circle', 'red-text', words(other)); });
  }

  find('.vmb-start').addEventListener('click', function () {
    var button = this;
    var said = find('.vmb-down .vmb-said');
    button.disabled = true;
    said.textContent = 'Starting…';
    checked = Date.now(); // none meanwhile
    ask('POST', '/daemon/start', undefined, '', START).then(function (found) {
      said.textContent = found.started ? '' : found.said;
    }, function (wrong) { said.textContent = words(wrong); }).then(function () {
      button.disabled = false;
      checkAgain();
    });
  });

  function checkAgain() { checked = 0; lookSoon(); }

  find('.vmb-again').addEventListener('click', checkAgain);

  // -- the VMs ---------------------------------------------------------------------------------------

  function jobOf(vm, jobs) {
    return jobs.find(function (job) { return job.uuid ? job.uuid === vm.uuid : job.vm === vm.vm; });
  }

  function doing(job) {
    if (job.state === 'running') {
      return Object.keys(STEPS).find(function (words) { return STEPS[words].includes(job.step); }) || 'Begins';
    }
    if (job.waits_for) return 'Waits: ' + job.waits_for;
    return 'Waits for its turn';
  }

  function cell(row, name, label, text) {
    var found = make('td', name, text);
    if (label) found.dataset.label = label;
    row.appendChild(found);
    return found;
  }

  function act(words_, label, vm, doIt) {
    var button = make('button', '', words_);
    button.type = 'button';
    button.setAttribute('aria-label', label);
    button.addEventListener('click', function () {
      button.disabled = true;
      delete refused[vm.uuid];
      doIt().catch(function (wrong) {
        button.disabled = false;
        refused[vm.uuid] = words(wrong);
      }).then(lookSoon);
    });
    return button;
  }

  function showProgress(place, job, vm) {
    var part = job.total_bytes > 0 ? Math.min(100, Math.floor(100 * job.done_bytes / job.total_bytes)) : 0;
    var moves = job.state === 'running' && job.step === 'copy' && job.total_bytes > 0;
    place.appendChild(make('span', '', doing(job) + (moves ? ', ' + part + ' %' : '…')));
    if (moves) {
      var bar = make('div', 'vmb-bar');
      var filled = make('span');
      filled.style.width = part + '%';
      bar.setAttribute('role', 'progressbar');
      bar.setAttribute('aria-label', job.vm);
      bar.setAttribute('aria-valuenow', part);
      bar.appendChild(filled);
      place.appendChild(bar);
    }
    place.appendChild(act('Stop', 'Stop: ' + vm.vm, vm, function () {
      return ask('POST', '/jobs/' + job.id + '/cancel', {});
    }));
  }

  function showOutcome(place, job) {
    if (!job || !job.result) return;
    if (job.state === 'done' && !watched[job.uuid]) return;
    var good = job.state === 'done';
    var text = [job.summary, good ? '' : job.hint].filter(Boolean).join(' ');
    var colour = good && job.result !== 'warnings' ? 'green-text' : job.state === 'failed' ? 'red-text' : 'orange-text';
    place.appendChild(make('p', 'vmb-result ' + colour, moment(job.finished) + ': ' + text));
  }

  function vmRow(vm, live, ended) {
    var row = make('tr', vm.backed_up ? '' : 'vmb-out');
    row.dataset.uuid = vm.uuid;
    cell(row, 'vmb-name', '', vm.vm);
    cell(row, '', 'State', vm.state || 'removed from this server');
    var point = cell(row, 'vmb-point', 'Last good point', vm.newest_taken ? moment(vm.newest_taken) : 'none');
    if (vm.newest_taken && vm.current_as_of && vm.current_as_of !== vm.newest_taken) {
      point.appendChild(make('small', '', 'unchanged as of ' + moment(vm.current_as_of)));
    }
    var health = cell(row, 'vmb-words-of', 'Backups', '');
    health.appendChild(make('span', HEALTH[vm.health] || '', vm.words));
    if (!vm.backed_up) health.appendChild(make('small', '', vm.why_not));
    var place = cell(row, 'vmb-do', '', '');
    var job = jobOf(vm, live);
    if (job) {
      showProgress(place, job, vm);
    } else if (vm.state) {
      place.appendChild(act('Back up now', 'Back up now: ' + vm.vm, vm, function () {
        watched[vm.uuid] = true;
        return ask('POST', '/jobs', {kind: 'backup', vm: vm.uuid});
      }));
      if (!refused[vm.uuid]) showOutcome(place, jobOf(vm, ended));
    }
    if (refused[vm.uuid]) place.appendChild(make('p', 'vmb-result red-text', refused[vm.uuid])).setAttribute('role', 'alert');
    return row;
  }

  function rowOf(vm, live, ended) {
    var said = JSON.stringify([vm, jobOf(vm, live), jobOf(vm, ended), watched[vm.uuid], refused[vm.uuid], vmb.today()]);
    if (!rows[vm.uuid] || rows[vm.uuid].said !== said) rows[vm.uuid] = {said: said, row: vmRow(vm, live, ended)};
    return rows[vm.uuid].row;
  }

  function showStatus(status, jobs) {
    var live = status.running.concat(status.queued);
    var ended = jobs.filter(function (job) { return job.finished && job.kind === 'backup'; });
    sentence(status.fine ? 'fa-check-circle' : 'fa-exclamation-triangle',
      status.fine ? 'green-text' : 'orange-text', status.sentence);
    // While all is well only the age of backups changes, which nobody wants to hear again and again.
    find('.vmb-top').setAttribute('aria-live', status.fine ? 'off' : 'polite');
    draw(find('.vmb-todo'), [status.sentence, status.todo], function (list) {
      status.todo.forEach(function (each) {
        var line = make('li', '', each.what === status.sentence ? '' : each.what + ' ');
        if (each.hint) line.appendChild(make('b', '', each.hint));
        list.appendChild(line);
      });
    });
    var body = find('.vmb-vms tbody');
    var shown = status.vms.map(function (vm) { return rowOf(vm, live, ended); });
    if (!shown.length) {
      var none = cell(make('tr'), '', '', 'No VM is known yet.');
      none.colSpan = 5;
      shown = [none.parentNode];
    }
    if (shown.length !== body.children.length || shown.some(function (row, at) { return row !== body.children[at]; })) {
      var was = body.contains(document.activeElement) ? document.activeElement.closest('tr').dataset.uuid : '';
      empty(body);
      shown.forEach(function (row) { body.appendChild(row); });
      var focused = was && rows[was] && rows[was].row.querySelector('button');
      if (focused) focused.focus();
    }
    return live.length > 0;
  }

  // -- the system ------------------------------------------------------------------------------------

  function showSystem(system, zoned) {
    var wrong = system.parts.filter(function (part) { return part.state !== 'ok'; });
    var summary = find('.vmb-summary');
    var grave = wrong.some(function (part) { return part.state === 'failed' || part.state === 'warning'; });
    summary.className = 'vmb-summary ' + (wrong.length ? grave ? 'orange-text' : '' : 'green-text');
    summary.textContent = wrong.length
      ? wrong.length + ' of ' + system.parts.length + ' want a look or wait'
      : 'all ' + system.parts.length + ' parts are as they should be';
    checks(find('.vmb-system .vmb-checks'), system.parts);
    find('.vmb-version').textContent = 'Version ' + system.version + ', running since ' + moment(system.started)
      + '. ' + (zoned ? 'Times' : 'Times of schedules') + ' are in ' + system.time_zone + '.';
  }

  // -- all of it -------------------------------------------------------------------------------------

  function look() {
    if (looking) { again = true; return; }
    looking = true;
    clearTimeout(timer);
    var busy = false;
    ask('GET', '/status').then(function (status) { // alone: a daemon that hangs keeps few of the server waiting
      return Promise.all([status, ask('GET', '/jobs?limit=100'), ask('GET', '/system'), ask('GET', '/schedules')]);
    }).then(function (found) {
      var zoned = vmb.useZone(found[2].time_zone);
      busy = showStatus(found[0], found[1]);
      showSystem(found[2], zoned);
      vmb.settings.showNext(found[3]);
      return vmb.settings.load(found[3]);
    }).then(function () {
      checked = 0;
      show('.vmb-down', false);
      show('.vmb-up', true);
    }).catch(function (wrong) {
      return showDown(wrong);
    }).then(function () {
      looking = false;
      if (again) { again = false; look(); return; }
      timer = setTimeout(look, document.hidden ? 6 * LATER : busy || hurry-- > 0 ? SOON : LATER);
    });
  }

  function lookSoon() { hurry = 3; look(); }

  document.addEventListener('visibilitychange', function () { if (!document.hidden) look(); });
  vmb.lookSoon = lookSoon;
  look();
})();
