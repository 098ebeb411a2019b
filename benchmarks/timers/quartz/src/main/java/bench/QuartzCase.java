package bench;

import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.time.Instant;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import org.quartz.Job;
import org.quartz.JobBuilder;
import org.quartz.JobDetail;
import org.quartz.JobExecutionContext;
import org.quartz.Scheduler;
import org.quartz.SimpleScheduleBuilder;
import org.quartz.Trigger;
import org.quartz.TriggerBuilder;
import org.quartz.impl.StdSchedulerFactory;

/**
 * One measurement of Quartz in one process; prints one JSON object. Started by benchmarks/timers/quartz.py.
 *
 * <pre>QuartzCase ram|jdbc fill|burst|lateness JOBS_OR_RATE SECONDS THREADS [JDBC_URL USER]</pre>
 *
 * The password of the database comes in the variable PGPASSWORD. Instants are the wall clock's, in microseconds, as the
 * first statement of the job reads it. Each case is preceded by a small one that does not count, so that the code is
 * compiled by then.
 */
public final class QuartzCase {
    private static final int BATCH = 1_000;
    private static final int WARM_UP = 2_000;
    private static final long DAY_MS = 86_400_000L;

    private final boolean jdbc;
    private final int threads;
    private final String url;
    private final String user;
    private Scheduler scheduler;

    private QuartzCase(boolean jdbc, int threads, String url, String user) {
        this.jdbc = jdbc;
        this.threads = threads;
        this.url = url;
        this.user = user;
    }

    /** What every job does: it notes how late it began. */
    public static final class Note implements Job {
        static volatile long[] lateMicros = new long[0];
        static final AtomicInteger STARTED = new AtomicInteger();
        static volatile long fromMs;
        static volatile long untilMs;
        static volatile long dueMs;

        /** Notes the jobs that are scheduled for an instant from `fromMs` until before `untilMs`. */
        static void window(int most, long fromMs, long untilMs) {
            Note.fromMs = fromMs;
            Note.untilMs = untilMs;
            dueMs = 0;
            lateMicros = new long[most];
            STARTED.set(0);
        }

        /** Notes all jobs, which were due at `dueMs`: what is late by a minute has another instant by then (misfire). */
        static void due(int most, long dueMs) {
            window(most, 0, Long.MAX_VALUE);
            Note.dueMs = dueMs;
        }

        @Override
        public void execute(JobExecutionContext context) {
            Instant now = Instant.now();
            long scheduled = dueMs != 0 ? dueMs : context.getScheduledFireTime().getTime();
            if (scheduled < fromMs || scheduled >= untilMs) {
                return;
            }
            long[] late = lateMicros;
            int number = STARTED.getAndIncrement();
            if (number < late.length) {
                late[number] = now.getEpochSecond() * 1_000_000L + now.getNano() / 1_000L - scheduled * 1_000L;
            }
        }

        static long[] sorted() {
            long[] values = Arrays.copyOf(lateMicros, Math.min(STARTED.get(), lateMicros.length));
            Arrays.sort(values);
            return values;
        }
    }

    public static void main(String[] arguments) throws Exception {
        boolean jdbc = arguments[0].equals("jdbc");
        int amount = Integer.parseInt(arguments[2]);
        int seconds = Integer.parseInt(arguments[3]);
        QuartzCase made = new QuartzCase(
                jdbc, Integer.parseInt(arguments[4]), jdbc ? arguments[5] : "", jdbc ? arguments[6] : "");
        Map<String, Object> figures = new LinkedHashMap<>();
        figures.put("store", arguments[0]);
        figures.put("threads", made.threads);
        made.open();
        try {
            switch (arguments[1]) {
                case "fill" -> made.fill(amount, seconds, figures);
                case "burst" -> made.burst(amount, seconds, figures);
                case "lateness" -> made.lateness(amount, seconds, figures);
                default -> throw new IllegalArgumentException("there is no case " + arguments[1]);
            }
        } finally {
            made.scheduler.shutdown(false);
        }
        System.out.println(json(figures));
        System.exit(0);
    }

    // --- the scheduler ---

    private void open() throws Exception {
        Properties p = new Properties();
        p.setProperty("org.quartz.scheduler.instanceName", "bench");
        p.setProperty("org.quartz.scheduler.instanceId", "AUTO");
        p.setProperty("org.quartz.scheduler.batchTriggerAcquisitionMaxCount", Integer.toString(threads));
        p.setProperty("org.quartz.threadPool.class", "org.quartz.simpl.SimpleThreadPool");
        p.setProperty("org.quartz.threadPool.threadCount", Integer.toString(threads));
        p.setProperty("org.quartz.jobStore.misfireThreshold", "60000");
        if (jdbc) {
            createTables();
            p.setProperty("org.quartz.jobStore.class", "org.quartz.impl.jdbcjobstore.JobStoreTX");
            p.setProperty("org.quartz.jobStore.driverDelegateClass", "org.quartz.impl.jdbcjobstore.PostgreSQLDelegate");
            p.setProperty("org.quartz.jobStore.isClustered", "true");
            p.setProperty("org.quartz.jobStore.useProperties", "true");
            // Quartz asks for it wherever more than one trigger is acquired at a time.
            p.setProperty("org.quartz.jobStore.acquireTriggersWithinLock", "true");
            p.setProperty("org.quartz.jobStore.dataSource", "db");
            p.setProperty("org.quartz.dataSource.db.provider", "hikaricp");
            p.setProperty("org.quartz.dataSource.db.driver", "org.postgresql.Driver");
            p.setProperty("org.quartz.dataSource.db.URL", url);
            p.setProperty("org.quartz.dataSource.db.user", user);
            p.setProperty("org.quartz.dataSource.db.password", System.getenv("PGPASSWORD"));
            p.setProperty("org.quartz.dataSource.db.maxConnections", Integer.toString(threads + 5));
        } else {
            p.setProperty("org.quartz.jobStore.class", "org.quartz.simpl.RAMJobStore");
        }
        scheduler = new StdSchedulerFactory(p).getScheduler();
    }

    private Connection connect() throws Exception {
        return DriverManager.getConnection(url, user, System.getenv("PGPASSWORD"));
    }

    private void createTables() throws Exception {
        try (InputStream script = StdSchedulerFactory.class.getResourceAsStream(
                        "/org/quartz/impl/jdbcjobstore/tables_postgres.sql");
                Connection connection = connect();
                Statement statement = connection.createStatement()) {
            statement.execute(new String(script.readAllBytes(), StandardCharsets.UTF_8));
        }
    }

    // --- the cases ---

    private void fill(int jobs, int seconds, Map<String, Object> figures) throws Exception {
        Random source = new Random(20_260_101);
        warmUp();
        long before = heapBytes();
        long stored = storedBytes();
        long now = System.currentTimeMillis();
        long begun = System.nanoTime();
        add(jobs, number -> once(number, now + 3_600_000L + source.nextInt((int) (DAY_MS - 7_200_000L))));
        double addedS = (System.nanoTime() - begun) / 1e9;
        figures.put("timers", jobs);
        figures.put("insert_total_s", addedS);
        figures.put("insert_us", addedS / jobs * 1e6);
        long grown = heapBytes() - before;
        figures.put("memory_mb", grown / 1e6);
        figures.put("bytes_per_timer", (double) grown / jobs);
        if (jdbc) {
            figures.put("database_bytes_per_timer", (double) (storedBytes() - stored) / jobs);
        }
        scheduler.start();
        Thread.sleep(2_000);
        double used = cpuSeconds();
        Thread.sleep(seconds * 1_000L);
        figures.put("idle_cpu_share", (cpuSeconds() - used) / seconds);
    }

    private void burst(int jobs, int patienceS, Map<String, Object> figures) throws Exception {
        warmUp();
        scheduler.start();
        // Adding takes as long as it takes; the instant is after it, and the same for all.
        long due = System.currentTimeMillis() + 4_000L + (jdbc ? jobs * 4L : jobs / 20L);
        Note.due(jobs * 2, due);
        add(jobs, number -> once(number, due));
        if (System.currentTimeMillis() > due - 500) {
            throw new IllegalStateException("adding took longer than the instant was away");
        }
        long end = due + patienceS * 1_000L;
        while (Note.STARTED.get() < jobs && System.currentTimeMillis() < end) {
            Thread.sleep(10);
        }
        Thread.sleep(500);
        long[] late = Note.sorted();
        figures.put("tasks", jobs);
        figures.put("started", late.length);
        figures.put("dropped", jobs - late.length);
        figures.put("first_start_ms", rank(late, 0.0));
        figures.put("p50_start_ms", rank(late, 0.5));
        figures.put("all_started_ms", rank(late, 1.0));
    }

    private void lateness(int rate, int seconds, Map<String, Object> figures) throws Exception {
        warmUp();
        scheduler.start();
        long now = System.currentTimeMillis();
        long first = now - now % 1_000 + 4_000L + (jdbc ? rate * 4L / 1_000 * 1_000 : 1_000);
        long last = first + seconds * 1_000L;
        Note.window(rate * seconds * 2, first, last);
        add(rate, number -> everySecond(number, first + number * 1_000L / rate));
        if (System.currentTimeMillis() > first) {
            throw new IllegalStateException("adding took longer than the first instant was away");
        }
        Thread.sleep(first - System.currentTimeMillis());
        double used = cpuSeconds();
        Thread.sleep(last - System.currentTimeMillis());
        double share = (cpuSeconds() - used) / seconds;
        // What is late by no more than two seconds still counts as started.
        Thread.sleep(2_000);
        long[] late = Note.sorted();
        figures.put("rate", rate);
        figures.put("expected", rate * seconds);
        figures.put("started", late.length);
        figures.put("dropped", rate * seconds - late.length);
        figures.put("min_ms", rank(late, 0.0));
        figures.put("p50_ms", rank(late, 0.5));
        figures.put("p99_ms", rank(late, 0.99));
        figures.put("max_ms", rank(late, 1.0));
        figures.put("cpu_share", share);
    }

    private void warmUp() throws Exception {
        int jobs = jdbc ? WARM_UP / 4 : WARM_UP;
        scheduler.start();
        long due = System.currentTimeMillis() + (jdbc ? 2_000 : 500);
        Note.due(jobs * 2, due);
        add(jobs, number -> once(number, due));
        long end = due + 30_000;
        while (Note.STARTED.get() < jobs && System.currentTimeMillis() < end) {
            Thread.sleep(20);
        }
        Thread.sleep(200);
        scheduler.standby();
        scheduler.clear();
    }

    // --- jobs ---

    private interface Shape {
        Trigger of(int number);
    }

    private void add(int jobs, Shape shape) throws Exception {
        Map<JobDetail, Set<? extends Trigger>> batch = new HashMap<>();
        for (int number = 0; number < jobs; number++) {
            JobDetail job = JobBuilder.newJob(Note.class)
                    .withIdentity("task-" + number)
                    .requestRecovery(jdbc)
                    .build();
            batch.put(job, Set.of(shape.of(number)));
            if (batch.size() == BATCH) {
                scheduler.scheduleJobs(batch, false);
                batch = new HashMap<>();
            }
        }
        if (!batch.isEmpty()) {
            scheduler.scheduleJobs(batch, false);
        }
    }

    private static Trigger once(int number, long atMs) {
        return TriggerBuilder.newTrigger()
                .withIdentity("task-" + number)
                .startAt(new Date(atMs))
                .build();
    }

    private static Trigger everySecond(int number, long firstMs) {
        return TriggerBuilder.newTrigger()
                .withIdentity("task-" + number)
                .startAt(new Date(firstMs))
                .withSchedule(SimpleScheduleBuilder.simpleSchedule()
                        .withIntervalInMilliseconds(1_000)
                        .repeatForever())
                .build();
    }

    // --- figures ---

    private static long heapBytes() throws InterruptedException {
        for (int round = 0; round < 3; round++) {
            System.gc();
            Thread.sleep(100);
        }
        Runtime runtime = Runtime.getRuntime();
        return runtime.totalMemory() - runtime.freeMemory();
    }

    private long storedBytes() throws Exception {
        if (!jdbc) {
            return 0;
        }
        try (Connection connection = connect();
                Statement statement = connection.createStatement();
                ResultSet answer = statement.executeQuery("select sum(pg_total_relation_size(oid)) from pg_class"
                        + " where relname like 'qrtz%' and relkind = 'r'")) {
            answer.next();
            return answer.getLong(1);
        }
    }

    private static double cpuSeconds() {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime() / 1e9;
    }

    /** The nearest-rank percentile of sorted microseconds, in milliseconds; 0 is the first. Null: there is none. */
    private static Double rank(long[] sorted, double share) {
        return sorted.length == 0 ? null : sorted[Math.max(0, (int) Math.ceil(share * sorted.length) - 1)] / 1e3;
    }

    private static String json(Map<String, Object> figures) {
        StringBuilder text = new StringBuilder("{");
        for (var figure : figures.entrySet()) {
            Object value = figure.getValue();
            text.append(text.length() > 1 ? ", " : "").append('"').append(figure.getKey()).append("\": ");
            text.append(value instanceof String ? "\"" + value + "\"" : String.valueOf(value));
        }
        return text.append("}").toString();
    }
}
