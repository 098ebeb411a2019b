-- The health of every kind of tickwheel.io, from the conditions that the operator writes (docs/gitops.md).
-- Runs (TaskRun, WorkflowRun) end: Succeeded. All other kinds settle: Ready, Reconciling, Stalled.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end

local function health(word, type, otherwise)
  local message = conditions[type] ~= nil and conditions[type].message or ""
  if message == "" then
    message = otherwise
  end
  return { status = word, message = message }
end

local isRun = string.sub(obj.kind, -3) == "Run" -- its end is final: the generation does not matter
if next(conditions) == nil or (not isRun and status.observedGeneration ~= obj.metadata.generation) then
  return { status = "Progressing", message = "the operator has not looked at this generation yet" }
end
if is("Stalled", "True") then
  return health("Degraded", "Stalled", "mend the spec")
end
if isRun then
  if is("Succeeded", "True") then
    return health("Healthy", "Succeeded", "succeeded")
  end
  if is("Succeeded", "False") then
    return health("Degraded", "Succeeded", "failed")
  end
  return health("Progressing", "Running", status.state or "waits for its turn")
end
if is("Reconciling", "True") then
  return health("Progressing", "Reconciling", "the operator is at work")
end
if is("Ready", "True") then
  if conditions.Ready.reason == "Suspended" then
    return health("Suspended", "Ready", "suspended")
  end
  return health("Healthy", "Ready", "ready")
end
return health("Progressing", "Ready", "not ready yet")
