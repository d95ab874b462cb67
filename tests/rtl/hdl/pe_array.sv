// The array: PEs 0 .. NUM_PES - 1 and the root on one bus and one reduction tree. Parameters as in an array's YAML;
// times are cycles, TREE_LATENCIES has level j's link in bits 8 j .. 8 j + 7.
module pe_array #(
    parameter int NUM_PES = 4,
    parameter int BUS_BYTES = 8,
    parameter int BUS_LATENCY = 1,
    parameter int BUS_OVERHEAD = 2,
    parameter int BUS_REQUEST = 0,
    parameter int ARITY = 2,
    parameter int NUM_LEVELS = 2,
    parameter int TREE_BYTES = 8,
    parameter logic [63:0] TREE_LATENCIES = 64'h0101,
    parameter int COMBINE = 2,
    parameter int MERGE = 12,
    parameter int OUTPUTS = 4,
    parameter int DEPTH = 4,
    parameter int MATRIX_LATENCY = 8,
    parameter int LANES = 4,
    parameter int VECTOR_LATENCY = 4,
    parameter int MEMORY_BYTES_PER_CYCLE = 16,
    parameter int MEMORY_LATENCY = 20,
    parameter int ROOT_LANES = 8,
    parameter int ROOT_VECTOR_LATENCY = 4,
    parameter int ROOT_MEMORY_BYTES_PER_CYCLE = 16,
    parameter int ROOT_MEMORY_LATENCY = 20
) (
    input  logic               clk,
    input  logic               rst,
    input  logic               go,
    input  logic               host_write,
    input  logic [15:0]        host_unit,
    input  logic [2:0]         host_space,
    input  logic [31:0]        host_addr,
    input  logic [63:0]        host_wdata,
    output logic [63:0]        host_rdata,
    output logic               idle,
    output logic [31:0]        now,
    output logic [31:0]        last_event,
    output logic [NUM_PES:0]   work_start,
    output logic [NUM_PES:0]   work_end,
    output logic [NUM_PES:0]   bus_grant,
    output logic [NUM_PES-1:0] tree_start
);
    localparam int PORTS = NUM_PES + 1;
    localparam int BUS_BEAT = 43 + 16 + 8 * BUS_BYTES;
    localparam int TREE_SIDE = 50;  // valid, merges, combine 2, levels 4, last, to_root, slot 8, bytes 16, address 16
    localparam int TREE_BEAT = TREE_SIDE + 8 * TREE_BYTES;
    localparam int QUEUE = 1024;

    logic running;
    logic [PORTS-1:0] idles, events;
    assign idle = &idles;
    always_ff @(posedge clk) begin
        if (rst) begin
            running <= 1'b0;
            now <= '0;
            last_event <= '0;
        end else begin
            if (go) running <= 1'b1;
            if (running) now <= now + 1'b1;
            if (running && |events) last_event <= now + 1'b1;
        end
    end

    // ---- the bus: port 0 is the root, port i + 1 is PE i; units are numbered the other way round
    logic [PORTS-1:0]                ask, ask_joins, grant;
    logic [PORTS-1:0][15:0]          ask_order;
    logic [PORTS-1:0][16:0]          ask_cycles;
    logic [PORTS-1:0][BUS_BEAT-1:0]  driven;
    logic [BUS_BEAT-1:0]             heard;
    bus #(
        .PORTS(PORTS), .BEAT_BITS(BUS_BEAT), .LATENCY(BUS_LATENCY), .REQUEST(BUS_REQUEST), .QUEUE(QUEUE)
    ) bus (
        .clk, .rst, .now, .ask, .ask_joins, .ask_order, .ask_cycles, .grant, .driven, .heard
    );

    // ---- the tree
    logic [NUM_PES-1:0]                present, merges, starts;
    logic [NUM_PES-1:0][15:0]          order, beats;
    logic [NUM_PES-1:0][3:0]           ends_at;
    logic [NUM_PES-1:0][TREE_BEAT-1:0] sent;
    logic [NUM_LEVELS:1][NUM_PES-1:0][TREE_BEAT-1:0] results;
    reduction_tree #(
        .LEAVES(NUM_PES), .ARITY(ARITY), .LEVELS(NUM_LEVELS), .LATENCIES(TREE_LATENCIES), .COMBINE(COMBINE),
        .MERGE(MERGE), .BYTES(TREE_BYTES), .SIDE_BITS(TREE_SIDE), .LEVELS_AT(42)
    ) tree (
        .clk, .rst, .now, .present, .order, .ends_at, .merges, .beats, .start(starts), .sent, .results
    );
    assign tree_start = starts;

    function automatic int reach(input int level);  // leaves below a joint
        int size;
        size = 1;
        for (int k = 0; k < level; k = k + 1) size = size * ARITY;
        reach = size;
    endfunction

    logic [PORTS-1:0][63:0] read_back;
    assign host_rdata = read_back[host_unit];

    genvar i, l;
    generate
        for (i = 0; i < NUM_PES; i = i + 1) begin : g_pe
            logic [NUM_LEVELS*TREE_BEAT-1:0] ends_here;
            for (l = 1; l <= NUM_LEVELS; l = l + 1) begin : g_level
                assign ends_here[(l-1)*TREE_BEAT +: TREE_BEAT] = i % reach(l) == 0 ? results[l][i / reach(l)] : '0;
            end
            unit #(
                .OUTPUTS(OUTPUTS), .DEPTH(DEPTH), .MATRIX_LATENCY(MATRIX_LATENCY), .LANES(LANES),
                .VECTOR_LATENCY(VECTOR_LATENCY), .WORD_BYTES(MEMORY_BYTES_PER_CYCLE), .MEMORY_LATENCY(MEMORY_LATENCY),
                .BUS_BYTES(BUS_BYTES), .BUS_OVERHEAD(BUS_OVERHEAD), .BUS_BEAT(BUS_BEAT), .TREE_BYTES(TREE_BYTES),
                .TREE_SIDE(TREE_SIDE), .TREE_LEVELS(NUM_LEVELS)
            ) one (
                .clk, .rst, .running, .pe(8'(i)), .host_write(host_write && 32'(host_unit) == i), .host_space, .host_addr, .host_wdata,
                .host_rdata(read_back[i]), .idle(idles[i]), .event_ends(events[i]), .work_start(work_start[i]),
                .work_end(work_end[i]), .ask(ask[i+1]), .ask_joins(ask_joins[i+1]), .ask_order(ask_order[i+1]),
                .ask_cycles(ask_cycles[i+1]), .grant(grant[i+1]), .driven(driven[i+1]), .heard,
                .present(present[i]), .order(order[i]), .ends_at(ends_at[i]), .merges(merges[i]), .beats(beats[i]),
                .tree_start(starts[i]), .sent(sent[i]), .results(ends_here)
            );
            assign bus_grant[i] = grant[i+1];
        end
    endgenerate
    assign bus_grant[NUM_PES] = grant[0];

    // The root: a unit without matrix unit, whose leaf is not wired.
    logic [NUM_LEVELS:1][TREE_BEAT-1:0] at_root;
    generate
        for (l = 1; l <= NUM_LEVELS; l = l + 1) begin : g_root_level
            assign at_root[l] = l == NUM_LEVELS ? results[l][0] : '0;
        end
    endgenerate
    unit #(
        .IS_ROOT(1), .LANES(ROOT_LANES), .VECTOR_LATENCY(ROOT_VECTOR_LATENCY),
        .WORD_BYTES(ROOT_MEMORY_BYTES_PER_CYCLE), .MEMORY_LATENCY(ROOT_MEMORY_LATENCY), .BUS_BYTES(BUS_BYTES),
        .BUS_OVERHEAD(BUS_OVERHEAD), .BUS_BEAT(BUS_BEAT), .TREE_BYTES(TREE_BYTES), .TREE_SIDE(TREE_SIDE),
        .TREE_LEVELS(NUM_LEVELS), .COMMANDS(1024)
    ) root (
        .clk, .rst, .running, .pe(8'hff), .host_write(host_write && 32'(host_unit) == NUM_PES), .host_space, .host_addr, .host_wdata,
        .host_rdata(read_back[NUM_PES]), .idle(idles[NUM_PES]), .event_ends(events[NUM_PES]),
        .work_start(work_start[NUM_PES]), .work_end(work_end[NUM_PES]), .ask(ask[0]), .ask_joins(ask_joins[0]),
        .ask_order(ask_order[0]), .ask_cycles(ask_cycles[0]), .grant(grant[0]), .driven(driven[0]), .heard,
        .present(), .order(), .ends_at(), .merges(), .beats(), .tree_start(1'b0), .sent(), .results(at_root)
    );
endmodule
