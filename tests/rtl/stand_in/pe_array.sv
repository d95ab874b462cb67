// Obeys the ports of the array and does next to nothing, to test what builds and runs it: a unit's work commands take
// as many cycles as the lowest byte of their word says, 255 being forever; its sends and leaves begin one a cycle.
module pe_array #(
    parameter int NUM_PES = 4,
    // verilator lint_off UNUSEDPARAM
    parameter int BUS_BYTES = 0,
    parameter int BUS_LATENCY = 0,
    parameter int BUS_OVERHEAD = 0,
    parameter int BUS_REQUEST = 0,
    parameter int ARITY = 0,
    parameter int NUM_LEVELS = 0,
    parameter int TREE_BYTES = 0,
    parameter logic [63:0] TREE_LATENCIES = 0,
    parameter int COMBINE = 0,
    parameter int MERGE = 0,
    parameter int OUTPUTS = 0,
    parameter int DEPTH = 0,
    parameter int MATRIX_LATENCY = 0,
    parameter int LANES = 0,
    parameter int VECTOR_LATENCY = 0,
    parameter int MEMORY_BYTES_PER_CYCLE = 0,
    parameter int MEMORY_LATENCY = 0,
    parameter int ROOT_LANES = 0,
    parameter int ROOT_VECTOR_LATENCY = 0,
    parameter int ROOT_MEMORY_BYTES_PER_CYCLE = 0,
    parameter int ROOT_MEMORY_LATENCY = 0
    // verilator lint_on UNUSEDPARAM
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
    logic                   running;
    logic [NUM_PES:0]       done;
    logic [NUM_PES:0][63:0] contents;
    assign idle = &done;
    assign host_rdata = contents[host_unit[$clog2(NUM_PES + 1)-1:0]];
    always_ff @(posedge clk) begin
        if (rst) begin
            running <= 1'b0;
            now <= '0;
            last_event <= '0;
        end else begin
            if (go) running <= 1'b1;
            if (running) now <= now + 1;
            if (running && |{work_end, bus_grant, tree_start}) last_event <= now + 1;
        end
    end

    genvar u;
    generate
        for (u = 0; u <= NUM_PES; u = u + 1) begin : g_unit
            logic [7:0]  takes [16];
            logic [63:0] buffer [64];
            logic [47:0] lengths;
            logic [15:0] work, sends, leaves;
            logic [7:0]  left;
            logic        enters;
            wire         mine = host_write && host_unit == u;
            wire         busy = running && work < lengths[15:0];
            wire  [7:0]  now_left = left == 0 ? takes[work[3:0]] : left;
            assign contents[u] = buffer[host_addr[8:3]];
            assign work_start[u] = busy && left == 0;
            assign work_end[u] = busy && now_left == 1;
            assign bus_grant[u] = running && sends < lengths[31:16];
            assign enters = running && leaves < lengths[47:32];
            if (u < NUM_PES) begin : g_leaf
                assign tree_start[u] = enters;
            end
            assign done[u] = running && !busy && !bus_grant[u] && !enters;
            always_ff @(posedge clk) begin
                if (mine && host_space == 0 && host_addr[2:0] == 0) takes[host_addr[6:3]] <= host_wdata[7:0];
                if (mine && host_space == 3) buffer[host_addr[8:3]] <= host_wdata;
                if (mine && host_space == 5) lengths <= host_wdata[47:0];
                if (rst) {work, sends, leaves, left} <= '0;
                else begin
                    if (busy && now_left != 255) left <= now_left - 1;
                    if (busy && now_left == 255) left <= 255;
                    if (work_end[u]) work <= work + 1;
                    if (bus_grant[u]) sends <= sends + 1;
                    if (enters) leaves <= leaves + 1;
                    assert (!(busy && now_left == 0)) else $error("a command takes no time");
                end
            end
        end
    endgenerate
endmodule
