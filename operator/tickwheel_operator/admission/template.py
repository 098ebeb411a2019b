"""What a WorkerPool's template may not contain, in CEL: the part of `pools.constraints` that people meet.

`policies` puts it into the policy of WorkerPools, so that it is said at apply time. Invariant: what this refuses,
`pools.constraints` refuses too, of the same field path. It alone is complete: the operator asks it before it applies.
"""

from __future__ import annotations

import string

from tickwheel_operator.admission.values import literal
from tickwheel_operator.pools.template import MOUNT, OWN_VARIABLES, VOLUME

__all__ = ["FORBIDDEN_IN_PODS"]

_CEL = r"""
[o.?spec.?template.?spec].map(pod,
  ['hostNetwork', 'hostPID', 'hostIPC'].filter(f, pod[?f].orValue(false) == true)
    .map(f, $spec + '.' + f + $host) +
  [pod.?nodeName.orValue('')].filter(n, n != '')
    .map(n, $spec + '.nodeName: it would pass by the scheduler; use nodeSelector: {kubernetes.io/hostname: ...}') +
  [pod.?volumes.orValue([])].map(l,
    l.filter(v, has(v.hostPath)).map(v, $spec + '.volumes[' + string(l.indexOf(v)) + '].hostPath' + $host +
      ', or use emptyDir or a persistentVolumeClaim') +
    l.filter(v, v.?name.orValue('') == $volume).map(v, $spec + '.volumes[' + string(l.indexOf(v)) + '].name: ' +
      $volume + " is the operator's own volume; choose another name")
  )[0] +
  [pod.?securityContext].filter(s, s.?privileged.orValue(false) == true)
    .map(s, $spec + '.securityContext.privileged' + $host) +
  [pod.?serviceAccountName.or(pod.?serviceAccount).orValue('default')].filter(n,
    pod.hasValue() && size(o.?spec.?access.?serviceAccounts.orValue([])) > 0 && !(n in o.spec.access.serviceAccounts)
  ).map(n, $spec + (pod.?serviceAccount.hasValue() && !pod.?serviceAccountName.hasValue() ? '.serviceAccount: ' :
    '.serviceAccountName: ') + n + ' is not among spec.access.serviceAccounts, so its workers would be refused: use ' +
    o.spec.access.serviceAccounts[0]) +
  ['containers', 'initContainers'].map(f, [pod[?f].orValue([])].map(l, l.map(c,
    [$spec + '.' + f + '[' + string(l.indexOf(c)) + ']'].map(path, [c.?securityContext].map(s,
      (s.?privileged.orValue(false) == true ? [path + '.securityContext.privileged' + $host] : []) +
      (s.?allowPrivilegeEscalation.orValue(false) == true ?
        [path + '.securityContext.allowPrivilegeEscalation: workers may not gain privileges; remove it'] : []) +
      [s.?capabilities.?add.orValue([]).filter(x, x != 'NET_BIND_SERVICE')].filter(x, size(x) > 0).map(x,
        path + '.securityContext.capabilities.add: ' + x.join(', ') + ' may not be added; only NET_BIND_SERVICE may') +
      c.?ports.orValue([]).filter(p, p.?hostPort.orValue(0) != 0).map(p,
        path + '.ports[' + string(c.ports.indexOf(p)) + '].hostPort' + $host) +
      (f != 'containers' || c != (l.filter(x, x.?name.orValue('') == 'worker') + l)[0] ? [] : [$variables].map(own,
        c.?env.orValue([]).filter(e, e.?name.orValue('') in own).map(e, path + '.env[' + string(c.env.indexOf(e)) +
          ']: ' + e.name + ' is set by the operator: ' + own[e.name]) +
        c.?volumeMounts.orValue([]).filter(m, m.?mountPath.orValue('').matches($folder)).map(m, path +
          '.volumeMounts[' + string(c.volumeMounts.indexOf(m)) + '].mountPath: ' + $mount +
          " is the operator's own; mount elsewhere")
      )[0])
    )[0])[0].join('\n')
  ))[0].join('\n'))
)[0]"""

FORBIDDEN_IN_PODS = string.Template(_CEL.strip()).substitute(
    spec=literal("spec.template.spec"),
    host=literal(": workers may not reach into the node; remove it"),
    volume=literal(VOLUME),
    variables=literal(dict(OWN_VARIABLES)),
    mount=literal(MOUNT),
    folder=literal(f"^(/var)?{MOUNT.removeprefix('/var')}/*$"),
)
"""A list of texts: what must be mended in the template of the pool `o`. Some hold several, with line breaks between."""
